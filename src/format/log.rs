//! The log's own format: a count, then a size and a payload for each record.

/// The offset of the number of records: the commit point.
pub(crate) const COUNT_OFFSET: u64 = 0;
/// Bytes before the first record.
pub(crate) const HEADER_BYTES: u64 = 8;
/// Bytes of a record before its payload.
pub(crate) const SIZE_BYTES: u64 = 8;

/// The position behind a record, or `None` where no file is that long.
#[inline]
pub(crate) fn next_position(position: u64, size: u64) -> Option<u64> {
    position.checked_add(SIZE_BYTES)?.checked_add(size).filter(|next| *next <= i64::MAX as u64)
}

/// The number in the eight bytes at `at`, or `None` where they are not all there.
#[inline]
pub(crate) fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*field))
}

/// The most records that a file of this size can hold: empty ones.
pub(crate) fn most_records(file_bytes: u64) -> u64 {
    file_bytes.saturating_sub(HEADER_BYTES) / SIZE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_lies_has_no_next_position() {
        assert_eq!(next_position(8, 11), Some(27));
        assert_eq!(next_position(8, 0), Some(16));
        assert_eq!(next_position(8, u64::MAX), None);
        assert_eq!(next_position(8, i64::MAX as u64), None);
        assert_eq!(next_position(8, i64::MAX as u64 - 16), Some(i64::MAX as u64));
    }

    #[test]
    fn a_number_needs_all_of_its_bytes() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0x80, 9];
        assert_eq!(number_at(&bytes, 0), Some(0x8000_0000_0000_0001));
        assert_eq!(number_at(&bytes, 1), Some(0x0980_0000_0000_0000));
        assert_eq!(number_at(&bytes, 2), None);
        assert_eq!(number_at(&bytes, usize::MAX), None);
    }

    #[test]
    fn a_file_holds_no_more_records_than_empty_ones() {
        assert_eq!(most_records(0), 0);
        assert_eq!(most_records(15), 0);
        assert_eq!(most_records(16), 1);
    }
}
