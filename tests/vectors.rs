//! The injury: the readers of two languages read one log differently, and nobody notices, because each is only compared with itself.
//! The logs of spec/vectors have what is demanded beside them; spec/vectors/run asks the same of the other languages.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use immuta::{Error, ReadMode, Reader, ReaderOptions, Result, Start, Tailer};
use serde_json::Value;

const MODES: [ReadMode; 3] = [ReadMode::Auto, ReadMode::Mapped, ReadMode::Pread];

/// Sequence, position, size and CRC-32 of a record.
type Told = (u64, u64, u64, u32);

struct Vector {
    /// A copy of the log: the committed file is nobody's to open.
    path: PathBuf,
    records: Vec<Told>,
    /// Position, and sequence of the record, of the damage.
    damage: Option<(u64, Option<u64>)>,
}

fn vectors(copies: &Path) -> Vec<Vector> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("spec/vectors");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let demands = entry.unwrap().path();
        if demands.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let json: Value = serde_json::from_slice(&fs::read(&demands).unwrap()).unwrap();
        let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}"));
        let crc = |record: &Value| u32::from_str_radix(record["crc32"].as_str().unwrap(), 16).unwrap();
        let told = |record: &Value| {
            (number(record, "sequence"), number(record, "position"), number(record, "size"), crc(record))
        };
        let records = json["records"].as_array().unwrap().iter().map(told).collect();
        let error = &json["error"];
        assert!(error.is_null() || error["kind"] == "damaged", "{error}");
        let damage = (!error.is_null()).then(|| (number(error, "position"), error["sequence"].as_u64()));
        let path = copies.join(demands.with_extension("log").file_name().unwrap());
        fs::copy(demands.with_extension("log"), &path).unwrap();
        found.push(Vector { path, records, damage });
    }
    assert!(found.len() > 50, "there are {} vectors", found.len());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    let table: [u32; 256] = std::array::from_fn(|byte| (0..8).fold(byte as u32, step));
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize])
}

/// All that can be had, and what came then: `None` where nothing more is there.
fn read(tailer: Result<Tailer>) -> (Vec<Told>, Option<Error>) {
    let mut told = Vec::new();
    let mut tailer = match tailer {
        Ok(tailer) => tailer,
        Err(error) => return (told, Some(error)),
    };
    loop {
        match tailer.try_next() {
            Ok(Some(record)) => {
                let payload = record.payload();
                told.push((record.sequence(), record.position(), payload.len() as u64, crc32(payload)));
            }
            Ok(None) => return (told, None),
            Err(error) => return (told, Some(error)),
        }
    }
}

fn assert_ends(vector: &Vector, error: Option<Error>) {
    let damage = error.map(|error| match error {
        Error::Damaged { ref path, position, sequence, .. } => {
            assert_eq!(*path, vector.path);
            (position, sequence)
        }
        other => panic!("{}: {other}", vector.path.display()),
    });
    assert_eq!(damage, vector.damage, "{}", vector.path.display());
}

fn open(vector: &Vector, mode: ReadMode) -> Result<Reader> {
    let control = vector.path.parent().unwrap().join("control");
    ReaderOptions::new().read_mode(mode).control_dir(control).open(&vector.path)
}

#[test]
fn every_vector_is_read_as_demanded() {
    let dir = tempfile::tempdir().unwrap();
    for vector in vectors(dir.path()) {
        let name = vector.path.display();
        for mode in MODES {
            let reader = match open(&vector, mode) {
                Ok(reader) => reader,
                Err(error) => {
                    assert!(vector.records.is_empty(), "{name}: {error}");
                    assert_ends(&vector, Some(error));
                    continue;
                }
            };
            let all = vector.records.len() as u64;
            for skip in [0, 1, all / 2, all.saturating_sub(1), all] {
                let (told, error) = read(reader.tail(Start::Skip(skip)));
                let demanded = &vector.records[skip.min(all) as usize..];
                assert_eq!(told, demanded, "{name}, skip {skip}, {mode:?}");
                assert_ends(&vector, error);
            }
            for &(sequence, _, size, crc) in vector.records.iter().step_by(vector.records.len() / 20 + 1) {
                let payload = reader.get(sequence).unwrap().unwrap_or_else(|| panic!("{name}: record {sequence}"));
                assert_eq!((payload.len() as u64, crc32(&payload)), (size, crc), "{name}, record {sequence}");
            }
        }
    }
}

/// Beyond the last record a reader waits, and one of a damaged log does not.
#[test]
fn what_lies_behind_the_last_record_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    for vector in vectors(dir.path()) {
        let Ok(reader) = open(&vector, ReadMode::Auto) else { continue };
        let all = vector.records.len() as u64;
        let mut tailer = match reader.tail(Start::Skip(all)) {
            Ok(tailer) => tailer,
            Err(error) => {
                assert_ends(&vector, Some(error));
                continue;
            }
        };
        match tailer.next_timeout(Duration::from_millis(1)) {
            Err(Error::TimedOut { .. }) => assert_ends(&vector, None),
            Err(error) => assert_ends(&vector, Some(error)),
            Ok(_) => panic!("{}: a record behind the last", vector.path.display()),
        }
    }
}

#[test]
fn the_vectors_are_what_their_generator_makes() {
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("spec/vectors/generate");
    match std::process::Command::new("python3").arg(check).arg("--check").output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => support::skip(&format!("python3: {error}")),
    }
}
