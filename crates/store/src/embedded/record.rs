//! The log's records: one per key and revision, numbered so that their order is the order of events.

use bytes::Bytes;

use crate::{MAX_PREFIXES, Revision};

/// A record's key in the log: the revision, then the place among what happened at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordId(pub(super) u64);

const PLACE_BITS: u32 = 4;
const _: () = assert!(MAX_PREFIXES <= 1 << PLACE_BITS);

impl RecordId {
    pub(super) fn new(revision: Revision, place: usize) -> RecordId {
        debug_assert!(place < MAX_PREFIXES);
        RecordId(revision << PLACE_BITS | place as u64)
    }

    /// The first that a revision may have.
    pub(super) fn first(revision: Revision) -> RecordId {
        RecordId::new(revision, 0)
    }

    pub(super) fn revision(self) -> Revision {
        self.0 >> PLACE_BITS
    }
}

/// What the index keeps of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) id: RecordId,
    pub(super) created: Revision,
    /// 0 says that the record is a deletion.
    pub(super) version: u32,
    /// Unix seconds; 0 for never.
    pub(super) expires: u32,
}

impl Version {
    pub(super) fn deleted(&self) -> bool {
        self.version == 0
    }
}

/// A record about to be written.
#[derive(Clone, Debug)]
pub(super) struct NewRecord {
    pub(super) version: Version,
    /// The key's record before, if it held a value.
    pub(super) prev: Option<RecordId>,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

/// A record as it lies in the log.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) version: Version,
    pub(super) prev: Option<RecordId>,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// kind u8 (0), created u64, version u32, prev u64 (0: none), expires u32, key length u16, key, value; little endian.
const HEADER: usize = 27;

impl NewRecord {
    pub(super) fn as_record(&self) -> Record<'_> {
        Record { version: self.version, prev: self.prev, key: &self.key, value: &self.value }
    }

    pub(super) fn encoded_len(&self) -> usize {
        HEADER + self.key.len() + self.value.len()
    }

    /// Fills `out`, which has [`NewRecord::encoded_len`] bytes.
    pub(super) fn encode(&self, out: &mut [u8]) {
        let mut rest = out;
        let mut put = |bytes: &[u8]| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(bytes.len());
            head.copy_from_slice(bytes);
            rest = tail;
        };
        put(&[0]);
        put(&self.version.created.to_le_bytes());
        put(&self.version.version.to_le_bytes());
        put(&self.prev.map_or(0, |prev| prev.0).to_le_bytes());
        put(&self.version.expires.to_le_bytes());
        put(&(self.key.len() as u16).to_le_bytes());
        put(&self.key);
        put(&self.value);
    }
}

impl<'a> Record<'a> {
    /// `None` when the bytes are no record.
    pub(super) fn decode(id: RecordId, bytes: &'a [u8]) -> Option<Record<'a>> {
        let (kind, rest) = bytes.split_first_chunk::<1>()?;
        let (created, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (prev, rest) = rest.split_first_chunk()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let (key_length, rest) = rest.split_first_chunk()?;
        let (key, value) = rest.split_at_checked(u16::from_le_bytes(*key_length).into())?;
        let version = Version {
            id,
            created: u64::from_le_bytes(*created),
            version: u32::from_le_bytes(*version),
            expires: u32::from_le_bytes(*expires),
        };
        let prev = Some(RecordId(u64::from_le_bytes(*prev))).filter(|prev| prev.0 != 0);
        (*kind == [0]).then_some(Record { version, prev, key, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_round() {
        let version = Version { id: RecordId::new(7, 3), created: 5, version: 2, expires: 9 };
        let new = NewRecord { version, prev: Some(RecordId::first(6)), key: "key".into(), value: "value".into() };
        let mut bytes = vec![0; new.encoded_len()];
        new.encode(&mut bytes);
        let record = Record::decode(version.id, &bytes).unwrap();
        assert_eq!(
            (record.version, record.prev, record.key, record.value),
            (version, new.prev, &b"key"[..], &b"value"[..])
        );
        for cut in 0..HEADER + 3 {
            assert!(Record::decode(version.id, &bytes[..cut]).is_none(), "cut at {cut}");
        }
        bytes[0] = 1;
        assert!(Record::decode(version.id, &bytes).is_none());
    }

    #[test]
    fn ids_follow_the_order_of_events() {
        assert!(RecordId::new(2, 15) < RecordId::first(3));
        assert_eq!(RecordId::new(2, 15).revision(), 2);
    }
}
