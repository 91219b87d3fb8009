//! The index beside a log: a header and entries of 64 bytes each, every one with a checksum of its own.

use super::log::{HEADER_BYTES, number_at};

/// "immutaIX".
const MAGIC: u64 = u64::from_le_bytes(*b"immutaIX");
/// Moves when a field changes its place or its meaning.
const VERSION: u64 = 1;
/// The size of the header, and of an entry, in bytes.
pub(crate) const ENTRY_BYTES: u64 = 64;
/// An entry covers about this much of the log, in bytes.
pub(crate) const BLOCK_BYTES: u64 = 64 << 10;

/// Bytes of either that its checksum covers.
const CHECKED_BYTES: usize = 60;
/// The low byte of an entry's kind.
const KIND_BLOCK: u32 = 1;
const KIND_RUN: u32 = 2;
/// Flags of a block.
const DURABLE: u32 = 1 << 8;
const CLOSED: u32 = 1 << 9;
const FAILED: u32 = 1 << 10;
const INNER: u32 = 1 << 11;
/// Flag of a run: the count never leads what is durable.
const ORDERED: u32 = 1 << 8;

/// The bytes of a header or an entry.
pub(crate) type Bytes = [u8; ENTRY_BYTES as usize];

/// Which log an index belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Another one means that counted records may be others than before.
    pub(crate) history_id: [u64; 2],
    pub(crate) inode: u64,
    pub(crate) birth_ns: u64,
    /// When the index was begun, in nanoseconds since 1970.
    pub(crate) created_ns: u64,
}

/// An entry. Entries are in the order of the log: each begins where the one before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Of the first record behind the beginning.
    pub(crate) sequence: u64,
    /// Where it begins.
    pub(crate) position: u64,
    /// When all that it covers was published at the latest, in nanoseconds since 1970; never falls from entry to entry.
    pub(crate) time_ns: u64,
    pub(crate) what: What,
}

/// What an entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Block(Block),
    Run(Run),
}

/// Records that follow each other, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// In bytes.
    pub(crate) length: u64,
    pub(crate) records: u64,
    /// CRC32C of these bytes.
    pub(crate) crc: u32,
    /// The log was flushed up to the end of this block.
    pub(crate) durable: bool,
    /// The writer closed the log here.
    pub(crate) closed: bool,
    /// A flush failed after this.
    pub(crate) failed: bool,
    /// A batch may go on behind it, so a log does not end here.
    pub(crate) inner: bool,
}

/// A writer began here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) boot_id: [u64; 2],
    /// Of the file system, as seen in `namespace`; 0 where the kernel does not tell.
    pub(crate) mount_id: u64,
    pub(crate) namespace: u32,
    pub(crate) epoch: u32,
    /// Each count was stored only when its records were durable.
    pub(crate) ordered: bool,
}

fn put(bytes: &mut Bytes, at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn put_short(bytes: &mut Bytes, at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn number(bytes: &Bytes, at: usize) -> u64 {
    number_at(bytes, at).expect("a field lies within its entry")
}

fn short(bytes: &Bytes, at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn seal(mut bytes: Bytes) -> Bytes {
    let crc = crc32c::crc32c(&bytes[..CHECKED_BYTES]);
    put_short(&mut bytes, CHECKED_BYTES, crc);
    bytes
}

fn is_sealed(bytes: &Bytes) -> bool {
    // The checksum of zeros is not zero, so that a hole is no entry.
    short(bytes, CHECKED_BYTES) == crc32c::crc32c(&bytes[..CHECKED_BYTES])
}

impl Header {
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = [0; ENTRY_BYTES as usize];
        let [a, b] = self.history_id;
        for (field, value) in [MAGIC, VERSION, a, b, self.inode, self.birth_ns, self.created_ns].into_iter().enumerate()
        {
            put(&mut bytes, field * 8, value);
        }
        seal(bytes)
    }

    pub(crate) fn decode(bytes: &Bytes) -> Option<Header> {
        let is_ours = is_sealed(bytes) && number(bytes, 0) == MAGIC && number(bytes, 8) == VERSION;
        is_ours.then(|| Header {
            history_id: [number(bytes, 16), number(bytes, 24)],
            inode: number(bytes, 32),
            birth_ns: number(bytes, 40),
            created_ns: number(bytes, 48),
        })
    }
}

impl Entry {
    /// The sequence and the position behind it.
    pub(crate) fn end(&self) -> (u64, u64) {
        match self.what {
            What::Block(block) => (self.sequence + block.records, self.position + block.length),
            What::Run(_) => (self.sequence, self.position),
        }
    }

    /// The block, where it has records.
    pub(crate) fn block(&self) -> Option<&Block> {
        match &self.what {
            What::Block(block) if block.records > 0 => Some(block),
            _ => None,
        }
    }

    pub(crate) fn is_durable(&self) -> bool {
        matches!(self.what, What::Block(block) if block.durable)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = [0; ENTRY_BYTES as usize];
        put(&mut bytes, 0, self.sequence);
        put(&mut bytes, 8, self.position);
        put(&mut bytes, 32, self.time_ns);
        match self.what {
            What::Block(block) => {
                put(&mut bytes, 16, block.length);
                put(&mut bytes, 24, block.records);
                let flag = |set: bool, flag: u32| if set { flag } else { 0 };
                let flags = flag(block.durable, DURABLE)
                    | flag(block.closed, CLOSED)
                    | flag(block.failed, FAILED)
                    | flag(block.inner, INNER);
                put_short(&mut bytes, 40, KIND_BLOCK | flags);
                put_short(&mut bytes, 44, block.crc);
            }
            What::Run(run) => {
                put(&mut bytes, 16, run.boot_id[0]);
                put(&mut bytes, 24, run.boot_id[1]);
                put_short(&mut bytes, 40, KIND_RUN | if run.ordered { ORDERED } else { 0 });
                put_short(&mut bytes, 44, run.namespace);
                put(&mut bytes, 48, run.mount_id);
                put_short(&mut bytes, 56, run.epoch);
            }
        }
        seal(bytes)
    }

    /// `None` where the bytes are no entry, or one that cannot be true.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Entry> {
        if !is_sealed(bytes) {
            return None;
        }
        let kind = short(bytes, 40);
        let what = match kind & 0xff {
            KIND_BLOCK => What::Block(Block {
                length: number(bytes, 16),
                records: number(bytes, 24),
                crc: short(bytes, 44),
                durable: kind & DURABLE != 0,
                closed: kind & CLOSED != 0,
                failed: kind & FAILED != 0,
                inner: kind & INNER != 0,
            }),
            KIND_RUN => What::Run(Run {
                boot_id: [number(bytes, 16), number(bytes, 24)],
                mount_id: number(bytes, 48),
                namespace: short(bytes, 44),
                epoch: short(bytes, 56),
                ordered: kind & ORDERED != 0,
            }),
            _ => return None,
        };
        let entry = Entry { sequence: number(bytes, 0), position: number(bytes, 8), time_ns: number(bytes, 32), what };
        entry.is_possible().then_some(entry)
    }

    /// Whether its numbers can be of any log, so that sums of them do not overflow.
    fn is_possible(&self) -> bool {
        let (length, records) = match self.what {
            What::Block(block) => (block.length, block.records),
            What::Run(_) => (0, 0),
        };
        let most = i64::MAX as u64;
        self.position >= HEADER_BYTES
            && self.position <= most
            && length <= most - self.position
            && self.sequence <= (self.position - HEADER_BYTES) / 8
            && records <= length / 8
            && (records > 0) == (length > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> [Entry; 2] {
        let block = Block {
            length: 640,
            records: 7,
            crc: 0xdead_beef,
            durable: true,
            closed: false,
            failed: true,
            inner: true,
        };
        let run =
            Run { boot_id: [1, u64::MAX], mount_id: 77, namespace: 4_026_531_841, epoch: u32::MAX, ordered: true };
        let entry = |what| Entry { sequence: 3, position: 48, time_ns: 1_700_000_000_000_000_000, what };
        [entry(What::Block(block)), entry(What::Run(run))]
    }

    #[test]
    fn what_is_written_is_read() {
        let header = Header { history_id: [1, 2], inode: 3, birth_ns: 4, created_ns: 5 };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        for entry in entries() {
            assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        }
        assert_eq!(entries()[0].end(), (10, 688));
        assert_eq!(entries()[1].end(), (3, 48));
    }

    #[test]
    fn a_flipped_bit_is_found() {
        for entry in entries() {
            for bit in 0..512 {
                let mut bytes = entry.encode();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Entry::decode(&bytes), None, "bit {bit}");
            }
        }
        assert_eq!(Entry::decode(&[0; 64]), None, "a hole");
    }

    #[test]
    fn an_entry_that_cannot_be_true_is_none() {
        let [entry, _] = entries();
        let with = |length, records| {
            let block = Block { length, records, ..Block::default() };
            Entry::decode(&Entry { what: What::Block(block), ..entry }.encode())
        };
        assert!(with(8, 1).is_some() && with(0, 0).is_some());
        assert_eq!(with(u64::MAX, 1), None);
        assert_eq!(with(i64::MAX as u64, 1), None);
        assert_eq!(with(8, 2), None);
        assert_eq!(with(8, 0), None);
        assert_eq!(Entry::decode(&Entry { position: 0, ..entry }.encode()), None);
        assert_eq!(Entry::decode(&Entry { sequence: 6, ..entry }.encode()), None);
    }
}
