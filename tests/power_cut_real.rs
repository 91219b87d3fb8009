//! The injury: the power fails under a writer at any instant. The model in `power_cut_model.rs` is only what somebody thinks that a
//! disk does; here it is the kernel's own ext4, on a loop device, that is shut down without its journal being flushed. What the
//! writer had acknowledged over a pipe must be there, and nothing that was not appended. It needs root and loop devices.
//!
//! The long run: `cargo test --release --test power_cut_real -- --ignored --nocapture`; IMMUTA_ROUNDS and IMMUTA_SEED are looked at.

mod support;

use std::time::{Duration, Instant};

use immuta::{Durability, Evidence};
use support::content::{Random, payload};
use support::mount::Mount;
use support::process::Helper;
use support::{Log, encode, is_root, parse, skip};

/// More than this a flush, or a helper thread that is not let run, does not take.
const SLACK: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(20);

struct Machine {
    mount: Mount,
    log: Log,
    records: Vec<Vec<u8>>,
    random: Random,
    /// Of all rounds, by mode: lost records that were published, which is allowed.
    lost: u64,
}

impl Machine {
    /// Starts a writer, cuts the power under it, and recovers what is left.
    fn round(&mut self, round: u64) {
        let mode = ["sync", "interval", "buffered"][self.random.below(3) as usize];
        let seed = self.random.next();
        let base = self.records.len() as u64;
        let mut helper = Helper::start("acknowledge", &self.log, &format!("mode={mode} seed={seed}"));
        assert_eq!(helper.numbers("open"), [base], "round {round}");
        // Long enough at times to see that an interval is kept.
        let most = if self.random.below(10) == 0 { 1500 } else { 150 };
        std::thread::sleep(Duration::from_millis(self.random.below(most)));
        let cut_at: Duration = nix::time::ClockId::CLOCK_MONOTONIC.now().unwrap().into();
        self.mount.cut_power();
        let words = helper.last_words();
        self.mount.restore_power();
        // The memory of the machine is gone, too.
        for page in std::fs::read_dir(&self.log.control).unwrap() {
            std::fs::remove_file(page.unwrap().path()).unwrap();
        }
        let mut promised = base;
        let mut published = base;
        for word in &words {
            let words: Vec<_> = word.split_whitespace().collect();
            let ["durable" | "published", n, at] = words[..] else {
                assert_eq!(word, "failed");
                continue;
            };
            let (n, at): (u64, u64) = (n.parse().unwrap(), at.parse().unwrap());
            let at = Duration::from_nanos(at);
            // A flush under way while the journal is given up may be told that all is well: no writer outlives a power cut to be told.
            let counts = at < cut_at && (words[0] == "durable" || mode == "interval" && at + INTERVAL + SLACK < cut_at);
            promised = promised.max(if counts { n } else { 0 });
            published = published.max(n);
        }
        let last = words.iter().skip(words.len().saturating_sub(3)).cloned().collect::<Vec<_>>().join(", ");
        let what = format!("round {round}, {mode}, from {base} on, cut at {}, last words {last}", cut_at.as_nanos());
        let kept = self.recover(&what, seed, promised);
        self.lost += published.max(promised).saturating_sub(kept);
    }

    /// The log holds what it held, and of the stream `seed` what was promised at least; and does so after a second recovery.
    fn recover(&mut self, what: &str, seed: u64, promised: u64) -> u64 {
        let before = std::fs::read(&self.log.path).unwrap();
        let durability = [Durability::Buffered, Durability::Sync][self.random.below(2) as usize];
        let writer = self.log.writer_options().durability(durability).open(&self.log.path);
        let writer = writer.unwrap_or_else(|error| panic!("{what}: a plain power cut is refused: {error}"));
        let stat = writer.stat().unwrap();
        let recovery = stat.recovery.unwrap();
        assert!(stat.records >= promised, "{what}: {} are left of {promised}: {recovery:?}", stat.records);
        if promised > 0 {
            // Of a run that came to no checkpoint after a clean close the disk may not know.
            assert!(matches!(recovery.evidence, Evidence::Verified | Evidence::Closed), "{what}: {recovery:?}");
        }
        for sequence in self.records.len() as u64..stat.records {
            self.records.push(payload(seed, sequence, 1 << 14));
        }
        let found = parse(&self.log.bytes());
        let differs = found.iter().zip(&self.records).position(|(found, appended)| found != appended);
        assert_eq!(differs, None, "{what}: a record that was not appended: {recovery:?}");
        assert_eq!(found.len(), self.records.len(), "{what}");
        if let Some(discarded) = recovery.discarded {
            let lost = std::fs::read(&discarded.path).unwrap();
            assert!(before[discarded.position as usize..].starts_with(&lost), "{what}: the side file");
            std::fs::remove_file(discarded.path).unwrap();
        }
        writer.close().unwrap();
        assert!(self.log.bytes() == encode(&self.records), "{what}: after a close");
        let again = self.log.writer().stat().unwrap();
        assert_eq!((again.records, again.history_id), (stat.records, stat.history_id), "{what}: a second recovery");
        assert!(self.log.bytes() == encode(&self.records), "{what}: a second recovery");
        stat.records
    }
}

fn rounds(rounds: u64, seed: u64) {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::ext4(96 << 20) else { return skip("no ext4 in a file can be mounted here") };
    let number = |name, default| std::env::var(name).map_or(default, |text: String| text.parse().expect("a number"));
    let (rounds, seed) = (number("IMMUTA_ROUNDS", rounds), number("IMMUTA_SEED", seed));
    println!("{rounds} rounds from seed {seed}");
    let begin = Instant::now();
    let log = Log::at(mount.dir.join("events.log"));
    let mut machine = Machine { mount, log, records: Vec::new(), random: Random(seed), lost: 0 };
    let mut total = 0;
    for round in 0..rounds {
        if round % 8 == 7 {
            // A new one now and then: the power fails in its first instants, too.
            total += std::mem::take(&mut machine.records).len();
            std::fs::remove_file(&machine.log.path).unwrap();
        }
        machine.round(round);
    }
    total += machine.records.len();
    println!("{rounds} power cuts: {total} records kept, {} published ones lost, {:?}", machine.lost, begin.elapsed());
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    rounds(24, 1);
}

#[test]
#[ignore = "takes half an hour: 2,000 power cuts"]
fn what_was_acknowledged_survives_many_power_cuts() {
    rounds(2000, std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs());
}
