//! An index, as FORMAT.md has it, made to say that it is of another log and of another boot of the machine: a test's power cut
//! leaves other files on the same machine.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// What tells a file from every other: inode and birth.
pub type Identity = (u64, u64);

pub fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let birth = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Some((metadata.ino(), birth.map_or(0, |age| age.as_nanos() as u64)))
}

const ENTRY: usize = 64;
const MAGIC: &[u8] = b"immutaIX";
/// The low byte of the kind of an entry that says which boot it was written in.
const RUN: u8 = 2;

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// CRC32C, a bit at a time.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

fn is_sealed(entry: &[u8]) -> bool {
    entry[60..64] == crc(&entry[..60]).to_le_bytes()
}

fn seal(entry: &mut [u8]) {
    let crc = crc(&entry[..60]);
    entry[60..64].copy_from_slice(&crc.to_le_bytes());
}

/// Whose index these bytes are, if they are one.
pub fn log_of(bytes: &[u8]) -> Option<Identity> {
    let header = bytes.get(..ENTRY)?;
    (header.starts_with(MAGIC) && is_sealed(header)).then(|| (number(header, 32), number(header, 40)))
}

/// Says that it is of the log of this identity.
pub fn rename_log(index: &mut [u8], (inode, birth): Identity) {
    index[32..40].copy_from_slice(&inode.to_le_bytes());
    index[40..48].copy_from_slice(&birth.to_le_bytes());
    seal(&mut index[..ENTRY]);
}

/// Says of all runs that they were in another boot.
pub fn reboot(index: &mut [u8]) {
    for entry in index.as_chunks_mut::<ENTRY>().0.iter_mut().skip(1) {
        if entry[40] == RUN && is_sealed(entry) {
            entry[16..24].copy_from_slice(b"earlier ");
            seal(entry);
        }
    }
}
