//! Structs that may get more fields: their first field is the size that the program was compiled with.

use std::mem::size_of;

use super::error::{Failure, Outcome};

/// Larger than any such struct will ever be; a size beyond it is not one.
const SIZE_MOST: usize = 4096;

/// A struct that may get more fields at its end.
///
/// # Safety
/// It has no padding, begins with its size as a `usize`, and has only fields of which all bytes, also zeros, are a value.
pub(super) unsafe trait Growing: Copy {
    /// The size that it had in the first version.
    const LEAST: usize;
    /// The name that C has for it.
    const NAME: &'static str;
}

/// The size that the program says that its struct has.
///
/// # Safety
/// `at` is null or leads to a size.
unsafe fn size_of_theirs<T: Growing>(at: *const T) -> Outcome<usize> {
    if at.is_null() {
        return Err(Failure::invalid(format!("the {} is NULL", T::NAME)));
    }
    // SAFETY: as the caller says.
    let size = unsafe { at.cast::<usize>().read() };
    if (T::LEAST..=SIZE_MOST).contains(&size) {
        return Ok(size);
    }
    let name = T::NAME;
    Err(Failure::invalid(format!(
        "the field size of {name} is {size}: set it to sizeof({name}), and all other fields to 0 first"
    )))
}

/// What an older, this or a newer program has chosen. Fields that it does not know are 0; those that this library does not know must be.
///
/// # Safety
/// `at` is null, or leads to as many bytes as its first field says.
pub(super) unsafe fn read<T: Growing>(at: *const T) -> Outcome<T> {
    // SAFETY: as the caller says, and as the trait does of `T`.
    unsafe {
        let theirs = size_of_theirs(at)?;
        let mut ours: T = std::mem::zeroed();
        let common = theirs.min(size_of::<T>());
        std::ptr::copy_nonoverlapping(at.cast::<u8>(), (&raw mut ours).cast::<u8>(), common);
        let beyond = std::slice::from_raw_parts(at.cast::<u8>().add(common), theirs - common);
        if beyond.iter().all(|byte| *byte == 0) {
            return Ok(ours);
        }
    }
    Err(Failure::invalid(format!("{} chooses something that this version of the library does not know", T::NAME)))
}

/// Fills in what the program has room for, and leaves its size as it is. What only a newer library knows becomes 0.
///
/// # Safety
/// `at` is null, or leads to as many bytes as its first field says, which may be written to.
pub(super) unsafe fn fill<T: Growing>(at: *mut T, make: impl FnOnce(usize) -> Outcome<T>) -> Outcome {
    // SAFETY: as the caller says, and as the trait does of `T`.
    unsafe {
        let theirs = size_of_theirs(at)?;
        let ours = make(theirs)?;
        let common = theirs.min(size_of::<T>());
        std::ptr::copy_nonoverlapping((&raw const ours).cast::<u8>(), at.cast::<u8>(), common);
        at.cast::<u8>().add(common).write_bytes(0, theirs - common);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Now {
        size: usize,
        first: u64,
        added: u64,
    }

    // SAFETY: three words.
    unsafe impl Growing for Now {
        const LEAST: usize = 16;
        const NAME: &'static str = "now";
    }

    fn read_words(words: &[usize]) -> Outcome<Now> {
        // SAFETY: no size in these tests is beyond the words, but for those that are refused.
        unsafe { read(words.as_ptr().cast()) }
    }

    #[test]
    fn a_program_of_any_age_is_understood() {
        assert_eq!(read_words(&[24, 1, 2]).unwrap(), Now { size: 24, first: 1, added: 2 });
        assert_eq!(read_words(&[16, 1, 77]).unwrap(), Now { size: 16, first: 1, added: 0 }, "older");
        assert_eq!(read_words(&[32, 1, 2, 0]).unwrap(), Now { size: 32, first: 1, added: 2 }, "newer");
        assert!(read_words(&[32, 1, 2, 1]).is_err(), "newer, and it wants something that is not there");
        for size in [0, 15, SIZE_MOST + 1, usize::MAX] {
            assert!(read_words(&[size, 1, 2]).is_err(), "{size}");
        }
    }

    #[test]
    fn as_much_is_filled_in_as_there_is_room_for() {
        let now = |size| Ok(Now { size, first: 1, added: 2 });
        let mut words = [16usize, 9, 9, 9];
        // SAFETY: four words are no less than the size says.
        unsafe { fill(words.as_mut_ptr().cast(), now) }.unwrap();
        assert_eq!(words, [16, 1, 9, 9]);
        words = [32, 9, 9, 9];
        // SAFETY: as above.
        unsafe { fill(words.as_mut_ptr().cast(), now) }.unwrap();
        assert_eq!(words, [32, 1, 2, 0]);
    }
}
