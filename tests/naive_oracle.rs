//! The injury: a log that its own library reads back well, and nobody else does; or one that holds other bytes than were appended
//! once batches were dropped, sources failed, windows moved. Random operations run against a plain `Vec`.

mod support;

use std::io::{self, Read};

use immuta::{Error, ReadMode, Reader, Start, Tailer, WaitStrategy, Writer, WriterOptions};
use proptest::prelude::*;
use support::content::{Random, fill};
use support::{Log, drain, encode, parse, positions, rounds};

const MIB: u64 = 1 << 20;

#[derive(Clone, Debug)]
enum Op {
    Append(u64),
    Batch { sizes: Vec<u64>, commit: bool },
    Claim { size: u64, written: u64, commit: bool },
    From { size: u64, piece: u64, fails: bool },
    Sync,
    Reopen { by_drop: bool },
}

/// Sizes at which something changes: none, a page, a large page, and the rest.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => Just(0),
        20 => 1..300u64,
        6 => 4096 - 24..4096 + 24u64,
        1 => 2 * MIB - 24..2 * MIB + 24,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => size().prop_map(Op::Append),
        3 => (prop::collection::vec(size(), 0..8), any::<bool>()).prop_map(|(sizes, commit)| Op::Batch { sizes, commit }),
        4 => (size(), 0..5000u64, any::<bool>())
            .prop_map(|(size, written, commit)| Op::Claim { size, written: written.min(size), commit }),
        3 => (size(), 1..70_000u64, any::<bool>()).prop_map(|(size, piece, fails)| Op::From { size, piece, fails }),
        1 => Just(Op::Sync),
        2 => any::<bool>().prop_map(|by_drop| Op::Reopen { by_drop }),
    ]
}

/// Gives `bytes` in pieces, is interrupted once, and then ends or fails.
struct Source<'a> {
    bytes: &'a [u8],
    piece: usize,
    interrupted: bool,
    fails: bool,
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.interrupted, true) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let give = self.bytes.len().min(self.piece).min(into.len());
        if give == 0 && self.fails {
            return Err(io::Error::other("the source broke"));
        }
        into[..give].copy_from_slice(&self.bytes[..give]);
        self.bytes = &self.bytes[give..];
        Ok(give)
    }
}

/// The log under test, what ought to be in it, and readers that were there from the beginning.
struct Run {
    log: Log,
    options: WriterOptions,
    model: Vec<Vec<u8>>,
    random: Random,
    live: Vec<(Tailer, usize)>,
    reader: Reader,
}

impl Run {
    fn bytes(&mut self, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; size as usize];
        fill(&mut bytes, self.random.next());
        bytes
    }

    fn apply(&mut self, writer: Writer, op: &Op) -> Writer {
        let mut writer = writer;
        let (sequence, position) = (self.model.len() as u64, *positions(&self.model).last().unwrap());
        match op {
            Op::Append(size) => {
                let bytes = self.bytes(*size);
                let appended = writer.append(&bytes).unwrap();
                assert_eq!((appended.sequence, appended.position, appended.size), (sequence, position, *size));
                self.model.push(bytes);
            }
            Op::Batch { sizes, commit } => {
                let records: Vec<_> = sizes.iter().map(|size| self.bytes(*size)).collect();
                let mut batch = writer.batch();
                for (n, record) in records.iter().enumerate() {
                    assert_eq!(batch.append(record).unwrap().sequence, sequence + n as u64);
                }
                self.check_live();
                if *commit {
                    assert_eq!(batch.commit().unwrap(), sequence..sequence + records.len() as u64);
                    self.model.extend(records);
                }
            }
            Op::Claim { size, written, commit } => {
                let bytes = self.bytes(*written);
                let mut claim = writer.claim(*size).unwrap();
                assert_eq!(claim.len() as u64, *size);
                assert!(claim.iter().all(|byte| *byte == 0), "a claim is zeroed, whatever was there before");
                claim[..bytes.len()].copy_from_slice(&bytes);
                self.check_live();
                if *commit {
                    assert_eq!(claim.commit().unwrap().sequence, sequence);
                    self.model.push(bytes);
                    self.model.last_mut().unwrap().resize(*size as usize, 0);
                }
            }
            Op::From { size, piece, fails } => {
                let bytes = self.bytes(*size);
                let source = Source { bytes: &bytes, piece: *piece as usize, interrupted: false, fails: *fails };
                match writer.append_from(source) {
                    Ok(appended) if !fails => {
                        assert_eq!((appended.sequence, appended.position, appended.size), (sequence, position, *size));
                        self.model.push(bytes);
                    }
                    Err(Error::Source { .. }) if *fails => {}
                    other => panic!("append_from of a source that fails={fails}: {other:?}"),
                }
            }
            Op::Sync => writer.sync().unwrap(),
            Op::Reopen { by_drop } => {
                if *by_drop {
                    drop(writer)
                } else {
                    writer.close().unwrap()
                }
                self.check_closed();
                writer = self.options.open(&self.log.path).unwrap();
            }
        }
        let stat = writer.stat().unwrap();
        assert_eq!((stat.records, stat.end), (self.model.len() as u64, *positions(&self.model).last().unwrap()));
        writer
    }

    /// Each reader sees what was published since it looked last, at once and nothing else.
    fn check_live(&mut self) {
        for (tailer, seen) in &mut self.live {
            let new = drain(tailer);
            assert!(
                new == self.model[*seen..],
                "a live reader sees {} records, not {}",
                new.len(),
                self.model.len() - *seen
            );
            *seen += new.len();
        }
    }

    fn check_closed(&mut self) {
        let bytes = self.log.bytes();
        assert!(bytes == encode(&self.model), "after a close the file is the exact encoding");
        assert!(parse(&bytes) == self.model, "the naive parser reads it");
    }

    fn check_late(&self) {
        let count = self.model.len();
        for n in [0, 1, count / 2, count.saturating_sub(1), count, count + 1] {
            let number = n as u64;
            for (start, first) in [
                (Start::Beginning, 0),
                (Start::End, count),
                (Start::Skip(number), n),
                (Start::SkipAtMost(number), n.min(count)),
                (Start::Last(number), count - n.min(count)),
                (Start::Sequence(number), n),
                (Start::from(n as i64), if n == 0 { 0 } else { n.min(count) }),
                (Start::from(-1 - n as i64), count),
            ] {
                let mut tailer = self.reader.tail(start).unwrap();
                assert_eq!(tailer.sequence(), first as u64, "{start:?} of {count}");
                assert!(drain(&mut tailer) == self.model[first.min(count)..], "{start:?} of {count}");
            }
            assert_eq!(self.reader.get(number).unwrap().as_ref(), self.model.get(n), "get({n})");
        }
        let verified = self.reader.verify(|_| true).unwrap();
        assert!(verified.problem.is_none(), "{verified:?}");
        assert_eq!((verified.records, verified.end), (count as u64, *positions(&self.model).last().unwrap()));
    }
}

fn run(ops: &[Op], window: Option<u64>, mapped: bool, seed: u64) {
    let log = Log::new();
    let (mut options, mut reading) = (log.writer_options(), log.reader_options());
    options.mapped(mapped);
    if let Some(window) = window {
        options.window(window);
        reading.window(window);
    }
    let mut writer = options.open(&log.path).unwrap();
    let open = |mode| reading.clone().read_mode(mode).wait_strategy(WaitStrategy::Park).open(&log.path).unwrap();
    let live = [ReadMode::Auto, ReadMode::Mapped, ReadMode::Pread].map(|mode| (open(mode).tail(0).unwrap(), 0)).into();
    let reader = open(ReadMode::Auto);
    let mut run = Run { log, options, model: Vec::new(), random: Random(seed), live, reader };
    for op in ops {
        writer = run.apply(writer, op);
        run.check_live();
    }
    run.check_late();
    writer.close().unwrap();
    run.check_closed();
    run.check_late();
    run.check_live();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(96, 512) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_the_file_holds_what_was_appended(
        ops in prop::collection::vec(op(), 1..40), small in any::<bool>(), mapped in prop::bool::weighted(0.75), seed in any::<u64>(),
    ) {
        run(&ops, small.then_some(4 * MIB), mapped, seed);
    }
}
