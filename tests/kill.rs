//! The injury: a writer, or a recovery, is killed between two stores or two calls, and what it had published or acknowledged is
//! gone afterwards, is there twice, is half a batch, or differs from what a follower had already seen.
//!
//! Every point is tried in turn, then random ones. `cargo test --release --features faults --test kill`; the long run, of 100,000
//! rounds or of IMMUTA_KILL_ROUNDS: the same with `-- --ignored`.

mod support;

use std::time::Duration;

use immuta::{Evidence, IndexState, Stat};
use support::content::Random;
use support::process::Helper;
use support::stamp::assert_are_whole;
use support::{Log, encode, parse};

/// Points that are tried where there may be one more.
const POINTS_MOST: u64 = 5000;

/// A log whose writers are killed one after the other, and a witness that outlives them.
struct Campaign {
    log: Log,
    options: String,
    witness: Helper,
    random: Random,
    run: u64,
    records: Vec<Vec<u8>>,
}

/// What a round was about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Killed,
    /// The writer did all that it was to do: there is no such point.
    ByItself,
}

impl Campaign {
    fn new(options: &str, seed: u64) -> Campaign {
        let log = Log::new();
        drop(log.writer());
        let witness = log.writer();
        // While there is a writer: without one nothing tells what is durable.
        let helper = Helper::faulty("seen", &log, "", "");
        helper.expect("ready");
        drop(witness);
        Campaign {
            log,
            options: options.to_owned(),
            witness: helper,
            random: Random(seed),
            run: 0,
            records: Vec::new(),
        }
    }

    /// A writer that is killed at the point that `fault` says, or where it is empty at some instant.
    fn round(&mut self, fault: &str) -> Ended {
        self.run += 1;
        let (run, ops) = (self.run, if fault.is_empty() { 100_000 } else { 12 });
        let context = format!("run {run}, {}, {fault}", self.options);
        let mut writer = Helper::faulty("write", &self.log, &format!("run={run} ops={ops} {}", self.options), fault);
        if fault.is_empty() {
            let most = [5_000, 30_000][self.random.below(2) as usize];
            std::thread::sleep(Duration::from_micros(self.random.below(most)));
            writer.kill();
        }
        let said = writer.rest();
        let status = writer.wait();
        let ended =
            if said.last().is_some_and(|last| last.starts_with("end")) { Ended::ByItself } else { Ended::Killed };
        assert!(ended == Ended::Killed || status.success(), "{context}: {status}, {said:?}");
        let records = self.parse();
        assert!(records.starts_with(&self.records), "{context}: what was there before has changed");
        assert_are_whole(&records, &context);
        for line in &said {
            let words: Vec<_> = line.split_whitespace().collect();
            let number = || words[1].parse::<usize>().expect("a number");
            match words[0] {
                "open" => {
                    assert_eq!(number(), self.records.len(), "{context}: the next writer begins where the last ended")
                }
                "published" | "durable" => assert!(
                    number() <= records.len(),
                    "{context}: {line} was acknowledged, and {} records are left",
                    records.len()
                ),
                "closed" | "end" => {}
                _ => panic!("{context}: {line}"),
            }
        }
        self.records = records;
        // A follower looks for the last records of a dead writer at its next bound, so not each time.
        self.ask_witness(self.run.is_multiple_of(16), &context);
        ended
    }

    fn parse(&self) -> Vec<Vec<u8>> {
        let bytes = self.log.bytes();
        if bytes.len() < 8 { Vec::new() } else { parse(&bytes) }
    }

    fn ask_witness(&mut self, reach: bool, context: &str) {
        let count = self.records.len() as u64;
        self.witness.say(&if reach { format!("reach {count}") } else { "now".to_owned() });
        let seen = self.witness.numbers("now");
        assert!(seen.iter().all(|seen| *seen <= count), "{context}: {seen:?} records were seen, and {count} are left");
        assert!(!reach || seen[..2] == [count; 2], "{context}: {seen:?} of {count} records reach the followers");
    }

    /// A second recovery changes nothing.
    fn recover_twice(&self) {
        let bytes = encode(&self.records);
        let open_and_close = || {
            let writer = self.log.writer();
            let stat = writer.stat().expect("stat");
            writer.close().expect("a clean close");
            assert_eq!(stat.records, self.records.len() as u64, "after run {}", self.run);
            assert!(self.log.bytes() == bytes, "after run {}: a recovery has changed records", self.run);
            let verified = self.log.reader().verify(|_| true).expect("a verification");
            assert_eq!((verified.problem, verified.index), (None, IndexState::Ok), "after run {}", self.run);
            assert_eq!(verified.checked, stat.records, "after run {}: the index covers all", self.run);
            evidence(&stat)
        };
        open_and_close();
        assert_eq!(
            open_and_close(),
            Evidence::Closed,
            "after run {}: the first recovery left something to do",
            self.run
        );
    }

    fn end(mut self) -> u64 {
        self.recover_twice();
        self.ask_witness(true, "at the end");
        self.witness.hush();
        let whole = self.witness.numbers("whole");
        assert!(whole[..2] == [self.records.len() as u64; 2], "{whole:?} were seen of {}", self.records.len());
        self.witness.succeeds();
        let left: Vec<_> =
            std::fs::read_dir(self.log.dir.path()).expect("the directory").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left.len(), 3, "the log, its index and the directory of pages: {left:?}");
        assert_eq!(std::fs::read_dir(&self.log.control).expect("the directory").count(), 0, "nothing is left behind");
        self.run
    }
}

fn evidence(stat: &Stat) -> Evidence {
    stat.recovery.as_ref().expect("a writer's").evidence
}

/// At every point in turn; the number of points.
fn kill_at_every_point(options: &str) -> u64 {
    let mut campaign = Campaign::new(options, 1);
    for n in 1..POINTS_MOST {
        if campaign.round(&format!("kill:{n}")) == Ended::ByItself {
            // The helper thread's share differs from run to run.
            let again = campaign.round(&format!("kill:{}", n + 1));
            if again == Ended::ByItself {
                campaign.end();
                return n - 1;
            }
        }
        if n.is_multiple_of(8) {
            campaign.recover_twice();
        }
    }
    panic!("there is no end of points");
}

/// At random points and instants.
fn kill_at_random(rounds: u64, seed: u64) {
    let mut random = Random(seed);
    let mut done = 0;
    while done < rounds {
        let mode = ["mode=buffered", "mode=interval", "mode=sync"][random.below(3) as usize];
        let mapped = if random.below(6) == 0 { "mapped=0" } else { "mapped=1" };
        let mut campaign = Campaign::new(&format!("{mode} {mapped}"), random.next());
        for _ in 0..40.min(rounds - done) {
            let fault = if random.below(4) > 0 { format!("kill:{}", 1 + random.below(220)) } else { String::new() };
            campaign.round(&fault);
            if random.below(8) == 0 {
                campaign.recover_twice();
            }
        }
        done += campaign.end();
        if done.is_multiple_of(1000) {
            println!("{done} rounds");
        }
    }
}

fn every_point(options: &str) {
    let begin = std::time::Instant::now();
    let points = kill_at_every_point(options);
    println!("{options}: killed at each of {points} points in {:.1} s", begin.elapsed().as_secs_f32());
    assert!(points > 100, "{points} points: the points are not met");
}

#[test]
fn a_buffered_writer_killed_at_every_point_loses_nothing() {
    every_point("mode=buffered");
}

#[test]
fn an_interval_writer_killed_at_every_point_loses_nothing() {
    every_point("mode=interval pause_ms=12");
}

#[test]
fn a_sync_writer_killed_at_every_point_loses_nothing() {
    every_point("mode=sync");
}

#[test]
fn a_writer_without_a_mapping_killed_at_every_point_loses_nothing() {
    every_point("mode=sync mapped=0");
}

#[test]
fn a_writer_of_large_records_killed_at_every_point_loses_nothing() {
    every_point("mode=buffered most=500000");
}

#[test]
fn writers_killed_at_random_lose_nothing() {
    kill_at_random(400, 3);
}

#[test]
#[ignore = "hours: 100,000 rounds"]
fn writers_killed_at_random_lose_nothing_in_the_long_run() {
    let rounds = std::env::var("IMMUTA_KILL_ROUNDS").map_or(100_000, |n| n.parse().expect("a number of rounds"));
    kill_at_random(rounds, 17);
}
