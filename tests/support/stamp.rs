//! Records that say of themselves who wrote them and when, so that one that is lost, doubled, torn or out of place shows.
#![allow(dead_code, reason = "each program uses its part of this")]

use super::content::{Random, fill};

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Of the writer's process.
    pub run: u64,
    /// Counts what the run has done.
    pub op: u64,
    /// In its batch.
    pub place: u64,
    /// Of the batch, or 1; 0 in what was abandoned and must never be seen.
    pub length: u64,
}

const FIELDS: usize = 32;

impl Stamp {
    fn seed(&self) -> u64 {
        let Stamp { run, op, place, length } = *self;
        [run, op, place, length]
            .into_iter()
            .fold(7, |seed, n| Random(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next())
    }

    /// A payload of `size` bytes, or a few more.
    pub fn payload(&self, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; FIELDS + size as usize];
        for (field, number) in [self.run, self.op, self.place, self.length].into_iter().enumerate() {
            bytes[field * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        fill(&mut bytes[FIELDS..], self.seed());
        bytes
    }

    /// What a payload says, if every byte of it is as it was written.
    pub fn of(payload: &[u8]) -> Option<Stamp> {
        let number = |field: usize| Some(u64::from_le_bytes(*payload.get(field * 8..)?.first_chunk()?));
        let stamp = Stamp { run: number(0)?, op: number(1)?, place: number(2)?, length: number(3)? };
        (stamp.payload((payload.len() - FIELDS) as u64) == payload).then_some(stamp)
    }
}

/// Fails unless these are whole batches, each once, in the order in which they were written, and nothing else.
pub fn assert_are_whole(records: &[Vec<u8>], context: &str) {
    let mut last = None;
    let mut at = 0;
    while at < records.len() {
        let of = |n: usize| {
            Stamp::of(&records[n]).unwrap_or_else(|| panic!("{context}: record {n} has bytes that nobody has appended"))
        };
        let first = of(at);
        assert!(first.length > 0, "{context}: record {at} was abandoned: {first:?}");
        assert_eq!(first.place, 0, "{context}: record {at} is the middle of a batch: {first:?}");
        assert!(last < Some((first.run, first.op)), "{context}: record {at} is there twice, or too late: {first:?}");
        last = Some((first.run, first.op));
        let end = at + first.length as usize;
        assert!(end <= records.len(), "{context}: the batch at record {at} is cut short: {first:?}");
        for place in 1..first.length {
            assert_eq!(of(at + place as usize), Stamp { place, ..first }, "{context}: a batch at record {at}");
        }
        at = end;
    }
}
