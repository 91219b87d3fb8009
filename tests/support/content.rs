//! Payloads that tell by themselves which record they are, and a checksum over a stream of records.
#![allow(dead_code, reason = "each program uses its part of this")]

/// Splitmix64: small, and good enough to choose sizes and bytes.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The payload of record `sequence` of the stream `seed`: mostly short, sometimes empty, sometimes some pages long.
pub fn payload(seed: u64, sequence: u64, most: u64) -> Vec<u8> {
    let mut random = Random(seed ^ sequence.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let size = match random.below(64) {
        0 => 0,
        1 => random.below(most),
        2..8 => 4080 + random.below(32),
        _ => random.below(256),
    };
    let mut bytes = vec![0; size.min(most) as usize];
    fill(&mut bytes, random.next());
    bytes
}

/// Bytes in which a piece that is missing, doubled or moved shows.
pub fn fill(bytes: &mut [u8], seed: u64) {
    let mut random = Random(seed);
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
}

/// A running checksum of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(pub u64);

impl Checksum {
    pub fn add(&mut self, payload: &[u8]) {
        let mut sum = self.0 ^ payload.len() as u64;
        for chunk in payload.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
        self.0 = sum.wrapping_add(1).wrapping_mul(0x94d0_49bb_1331_11eb);
    }

    pub fn of<T: AsRef<[u8]>>(records: &[T]) -> Checksum {
        let mut sum = Checksum::default();
        records.iter().for_each(|record| sum.add(record.as_ref()));
        sum
    }
}
