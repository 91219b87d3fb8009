//! What the records hold that the demo and the benchmarks append, and the look at every byte of them.

/// What payloads are filled with.
pub const FILLER: u8 = b'.';

/// The sum of all bytes, taken eight at once: touches each of them.
#[inline(always)]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let words = words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(words, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// The sum of what lies behind the first eight bytes, which carry a time or a number.
#[inline]
pub fn sum_of_rest(payload: &[u8]) -> u64 {
    sum(payload.get(8..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let bytes: Vec<u8> = (0..21).collect();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] += 100;
            assert_ne!(sum(&bytes), sum(&other), "byte {at}");
            assert_eq!(sum_of_rest(&bytes) == sum_of_rest(&other), at < 8, "byte {at}");
        }
        assert_eq!((sum(b""), sum_of_rest(b"12345678")), (0, 0));
    }
}
