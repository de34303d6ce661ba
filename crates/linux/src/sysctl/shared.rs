//! Who needs a setting in this network namespace, noted where the setting itself lives: in the namespace.
//!
//! The only table that is not one scope's own: its sets are called after a setting and the value it had before anybody came,
//! and hold the marks of the scopes that need it. It ends with the namespace, as the settings do.

use crate::nft::{Batch, Element, Error, Family, Field, Set, Socket, Value};

pub(super) const TABLE: &str = "oxikube-settings";
/// Between the setting and its former value; all of it can be written in the `nft` program's language.
const SEPARATOR: &str = ".was.";

pub(super) struct Shared(Socket);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Released {
    /// Nobody else noted a need.
    ByAll,
    NeededByOthers,
}

impl Shared {
    /// Of the calling thread's namespace.
    pub(super) fn open() -> Result<Shared, Error> {
        Socket::open().map(Shared)
    }

    /// What the setting was before the first scope came, if one came.
    pub(super) fn before(&self, key: &str) -> Result<Option<String>, Error> {
        Ok(self.find(key)?.and_then(|set| Some(set.split_once(SEPARATOR)?.1.to_owned())))
    }

    /// Notes that `holder` needs the setting.
    pub(super) fn hold(&self, key: &str, before: &str, holder: u32) -> Result<(), Error> {
        let set = format!("{key}{SEPARATOR}{before}");
        let mut batch = Batch::new(Family::Ip, TABLE);
        batch.table();
        batch.set(&Set::new(&set, &[Field::Number]));
        batch.add_elements(&set, [element(holder)]);
        self.0.commit(batch)
    }

    /// Notes that `holder` needs the setting no longer.
    pub(super) fn release(&self, key: &str, holder: u32) -> Result<Released, Error> {
        let Some(set) = self.find(key)? else { return Ok(Released::ByAll) };
        let holders = self.0.elements(Family::Ip, TABLE, &set)?;
        let others = holders.iter().any(|found| *found != element(holder));
        let mut batch = Batch::new(Family::Ip, TABLE);
        if !others && self.0.sets(Family::Ip, TABLE)?.len() == 1 {
            batch.delete_table();
        } else if !others {
            batch.delete_set(&set);
        } else if holders.contains(&element(holder)) {
            batch.delete_elements(&set, [element(holder)]);
        }
        self.0.commit(batch)?;
        Ok(if others { Released::NeededByOthers } else { Released::ByAll })
    }

    fn find(&self, key: &str) -> Result<Option<String>, Error> {
        let sets = self.0.sets(Family::Ip, TABLE)?;
        Ok(sets.into_iter().find(|set| set.split_once(SEPARATOR).is_some_and(|(found, _)| found == key)))
    }
}

fn element(holder: u32) -> Element {
    Element::key(Value::new().number(holder))
}
