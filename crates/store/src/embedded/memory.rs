//! A log that ends with the process: nothing is copied, its values are those that were written.

use std::collections::BTreeMap;

use super::database::WriteSet;
use super::record::{NewRecord, RecordId};

#[derive(Default)]
pub(super) struct Memory {
    pub(super) log: BTreeMap<RecordId, NewRecord>,
    pub(super) meta: BTreeMap<&'static str, u64>,
}

impl Memory {
    pub(super) fn write(&mut self, set: &WriteSet) {
        self.log.extend(set.records.iter().map(|record| (record.version.id, record.clone())));
        for id in &set.removes {
            self.log.remove(id);
        }
        self.meta.extend(set.meta.iter().copied());
    }
}
