//! The injury: some content of a file that nobody thought of makes a reader panic, loop or believe what cannot be, or a writer
//! append behind damage. Files of random bytes, and logs with random faults, against a parser that checks every step.

mod support;

use immuta::{Error, ReadMode, Result, Start};
use proptest::prelude::*;
use support::{Log, checked_parse, encode, rounds};

#[derive(Clone, Debug)]
enum Fault {
    Flip { at: usize, with: u8 },
    Number { at: usize, number: u64 },
    Cut { at: usize },
    Extend { bytes: Vec<u8> },
    Remove { at: usize, len: usize },
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..50u64,
        any::<u64>(),
        Just(u64::MAX),
        (0..64u32).prop_map(|bits| 1 << bits),
        Just(i64::MAX as u64 - 8)
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (any::<usize>(), 1..=255u8).prop_map(|(at, with)| Fault::Flip { at, with }),
        (any::<usize>(), number()).prop_map(|(at, number)| Fault::Number { at, number }),
        number().prop_map(|number| Fault::Number { at: 0, number }),
        number().prop_map(|number| Fault::Number { at: 8, number }),
        any::<usize>().prop_map(|at| Fault::Cut { at }),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Fault::Extend { bytes }),
        (any::<usize>(), 1..20usize).prop_map(|(at, len)| Fault::Remove { at, len }),
    ]
}

fn spoil(bytes: &mut Vec<u8>, fault: &Fault) {
    let len = bytes.len();
    match fault {
        Fault::Flip { at, with } if len > 0 => bytes[at % len] ^= with,
        Fault::Number { at, number } if len >= 8 => {
            let at = at % (len - 7);
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        Fault::Cut { at } => bytes.truncate(at % (len + 1)),
        Fault::Extend { bytes: more } => bytes.extend(more),
        Fault::Remove { at, len: removed } if len > 0 => {
            let at = at % len;
            bytes.drain(at..(at + removed).min(len));
        }
        _ => {}
    }
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let records = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..30);
    let spoilt = (records, prop::collection::vec(fault(), 0..4)).prop_map(|(records, faults)| {
        let mut bytes = encode(&records);
        faults.iter().for_each(|fault| spoil(&mut bytes, fault));
        bytes
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..200), 6 => spoilt]
}

fn is_damage<T>(result: Result<T>) {
    match result {
        Err(Error::Damaged { .. }) => {}
        Err(other) => panic!("damage is called something else: {other}"),
        Ok(_) => panic!("damage is not seen"),
    }
}

fn check(bytes: &[u8]) {
    let log = Log::new();
    std::fs::write(&log.path, bytes).unwrap();
    let expected = checked_parse(bytes);
    for mode in [ReadMode::Auto, ReadMode::Mapped, ReadMode::Pread] {
        let opened = log.reader_options().read_mode(mode).open(&log.path);
        let Some((records, whole)) = &expected else {
            is_damage(opened);
            continue;
        };
        let reader = opened.unwrap();
        let verified = reader.verify(|_| true).unwrap();
        assert_eq!((verified.problem.is_none(), verified.records), (*whole, records.len() as u64), "{verified:?}");
        for start in [Start::Beginning, Start::End, Start::Last(2), Start::Skip(1), Start::Sequence(u64::MAX)] {
            match reader.tail(start) {
                Ok(mut tailer) => {
                    let first = (tailer.sequence() as usize).min(records.len());
                    for record in &records[first..] {
                        assert_eq!(tailer.try_next().unwrap().unwrap().payload(), *record);
                    }
                    match tailer.try_next() {
                        Ok(None) => assert!(whole, "damage is not seen"),
                        other => is_damage(other),
                    }
                }
                damaged => {
                    assert!(!whole, "{damaged:?}");
                    is_damage(damaged);
                }
            }
        }
        for sequence in [0, 1, records.len() as u64, u64::MAX] {
            match reader.get(sequence) {
                Ok(payload) if *whole => assert_eq!(payload.as_deref(), records.get(sequence as usize).copied()),
                Ok(payload) => assert!(payload.as_deref() == records.get(sequence as usize).copied()),
                damaged => {
                    assert!(!whole, "{damaged:?}");
                    is_damage(damaged);
                }
            }
        }
        match reader.stat() {
            Ok(stat) => assert_eq!((stat.records, *whole), (records.len() as u64, true)),
            damaged => is_damage(damaged.map(|stat| assert!(!whole, "{stat:?}"))),
        }
        let _ = reader.writer();
    }
    // Without an index, empty records before other bytes may be zeros that a power cut left.
    let may_be_zeros =
        |records: &[&[u8]]| records.last().is_some_and(|last| last.is_empty()) && bytes.len() > encode(records).len();
    match expected {
        Some((mut records, true)) if !may_be_zeros(&records) => {
            let mut writer = log.writer();
            writer.append(b"one more").unwrap();
            writer.close().unwrap();
            records.push(b"one more");
            assert_eq!(log.bytes(), encode(&records));
        }
        _ => {
            is_damage(log.writer_options().open(&log.path));
            assert_eq!(log.bytes(), bytes, "a writer that refuses a file leaves it as it is");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(300, 10_000) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_content_of_a_file_is_too_much(bytes in content()) {
        check(&bytes);
    }
}
