//! The injury: the power fails, the disk has taken some pages and not others, in any order and torn in their midst: the count
//! without its records, records without the count, an index that says more than the log or less. The next writer then loses what
//! was acknowledged, refuses a log that is sound, or hands out bytes that nobody appended.
//!
//! Modelled: `support/disk.rs` knows what of the files was flushed at every instant, `support/cut.rs` makes of that what a disk may
//! hold. The long run: `cargo test --release --test power_cut_model -- --ignored --nocapture`. A failure names its seed;
//! `IMMUTA_SEED=… cargo test --test power_cut_model any_life` runs that life again, and the files that failed are kept.

#[path = "support/cut.rs"]
mod cut;
#[path = "support/disk.rs"]
mod disk;
#[path = "support/forge_files.rs"]
mod forge;
#[path = "support/life.rs"]
mod life;
mod support;

use std::time::{Duration, Instant};

use cut::{Effort, LOG};
use immuta::{Durability, Error};
use life::Life;
use support::content::Random;

const SMOKE: Effort = Effort { cuts: 22, all_up_to: 4, random: 6, again: 2 };
const INTERVAL: Durability = Durability::Interval(Duration::from_millis(10));

fn one_mode(durability: Durability, seed: u64) -> usize {
    let mut life = Life::new(seed);
    life.open(durability);
    (0..30).for_each(|_| life.step());
    life.check(SMOKE)
}

fn tell(what: &str, states: usize, begin: Instant) {
    println!("{what}: {states} states of the disk in {:?}", begin.elapsed());
}

#[test]
fn sync_loses_nothing_that_was_acknowledged() {
    let begin = Instant::now();
    let states = (1..4).map(|seed| one_mode(Durability::Sync, seed)).sum();
    tell("sync", states, begin);
}

#[test]
fn interval_loses_nothing_that_was_called_durable() {
    let begin = Instant::now();
    let states = (11..14).map(|seed| one_mode(INTERVAL, seed)).sum();
    tell("interval", states, begin);
}

#[test]
fn buffered_keeps_a_verified_prefix() {
    let begin = Instant::now();
    let states = (21..24).map(|seed| one_mode(Durability::Buffered, seed)).sum();
    tell("buffered", states, begin);
}

/// A few records over eight pages, and every subset of what is dirty at each flush of them.
#[test]
fn every_subset_of_a_few_pages() {
    let begin = Instant::now();
    let mut states = 0;
    for durability in [Durability::Sync, Durability::Buffered] {
        let mut life = Life::new(31);
        life.open(durability);
        life.disk.take_cuts();
        for size in [100, 5000, 0, 3000, 9000, 8000] {
            let payload = life.payload_of(size);
            life.append(payload);
        }
        if durability == Durability::Buffered {
            life.disk.take_cuts();
            life.sync();
        }
        states += life.check(Effort { cuts: 100, all_up_to: 12, random: 4, again: 1 });
    }
    assert!(states > 500, "the pages are not dirty: {states}");
    tell("every subset", states, begin);
}

/// A batch of several blocks, of which some are on the disk: it was never seen in part, and is not now.
#[test]
fn a_large_batch_is_whole_or_not_there() {
    let begin = Instant::now();
    let mut states = 0;
    for seed in 81..83 {
        let mut life = Life::new(seed);
        life.open(Durability::Buffered);
        life.append(vec![4; 500]);
        life.sync();
        life.large_batch(120, 4000);
        life.sync();
        states += life.check(Effort { again: 1, ..SMOKE });
    }
    tell("a large batch", states, begin);
}

/// Its writer was killed before it was flushed, and the next one covers it: where it ends is not known any more, so what was left is kept
/// in one piece, though in several blocks.
#[test]
fn a_large_batch_of_a_killed_writer_is_whole_or_not_there() {
    let begin = Instant::now();
    let mut states = 0;
    for seed in 91..93 {
        let mut life = Life::new(seed);
        life.open(Durability::Buffered);
        life.append(vec![4; 500]);
        life.sync();
        life.large_batch(120, 4000);
        life.kill();
        life.disk.take_cuts();
        life.open(Durability::Buffered);
        life.append(vec![5; 500]);
        life.sync();
        states += life.check(Effort { again: 1, ..SMOKE });
    }
    tell("a large batch of a killed writer", states, begin);
}

/// The next run's first entry is on the disk, in another page of the index than the entries before it, which are not: what `Sync`
/// has acknowledged lost its only proof, that its count was never ahead of it.
#[test]
fn a_run_that_follows_sync_takes_no_proof_away() {
    let begin = Instant::now();
    let mut states = 0;
    // With 30 the page ends there, if the helper thread had no time for a checkpoint.
    for records in [28, 29, 30, 30, 30, 31] {
        let mut life = Life::new(41);
        life.open(Durability::Buffered);
        for _ in 0..records {
            life.append(vec![1; 10]);
            life.sync();
        }
        life.kill();
        life.open(Durability::Sync);
        life.append(vec![2; 100]);
        life.kill();
        life.disk.take_cuts();
        life.open(Durability::Buffered);
        states += life.check(Effort { cuts: 20, all_up_to: 6, random: 0, again: 0 });
    }
    tell("a run after sync", states, begin);
}

/// A run in `Sync` begins behind records that were never flushed: from now on the count is their proof, and it is none.
#[test]
fn sync_after_buffered_believes_no_count_that_was_not_flushed() {
    let begin = Instant::now();
    let mut states = 0;
    for seed in 51..54 {
        let mut life = Life::new(seed);
        life.open(Durability::Buffered);
        life.batch(12, true);
        life.sync();
        life.batch(25, true);
        life.kill();
        life.disk.take_cuts();
        life.open(Durability::Sync);
        states += life.check(Effort { all_up_to: 7, again: 0, ..SMOKE });
    }
    tell("sync after buffered", states, begin);
}

/// Not the power, but the disk: what `Sync` has acknowledged has a checksum, though no checkpoint yet, and a bit of it is another.
/// The count is proof of what was flushed, and none against what a checksum says.
#[test]
fn a_flipped_bit_behind_the_last_checkpoint_of_sync_is_found() {
    let mut life = Life::new(61);
    life.open(Durability::Sync);
    life.append(vec![7; 100]);
    life.kill();
    life.disk.take_cuts();
    life.open(Durability::Sync);
    // The entries, then the run; soon after, a checkpoint.
    let cuts = life.disk.take_cuts();
    let cut = cuts.iter().filter(|cut| cut.what == "after the flush of events.log.idx").nth(1).expect("two flushes");
    let demand = life.demand();
    let mut damaged = false;
    cut.each(Effort { all_up_to: 0, ..SMOKE }, &mut Random(1), |mut files| {
        files.get_mut(LOG).expect("a log").1[60] ^= 4;
        damaged = true;
        cut::is_refused(&files, &demand);
    });
    assert!(damaged);
    life.disk.end();
}

/// The index can neither be written nor removed, and so tells a recovery of a log that ends earlier: then a flush of the log does
/// not make its records durable, and may not say so.
#[test]
fn nothing_is_called_durable_beside_an_index_that_is_stale() {
    for looks in [false, true] {
        let mut life = Life::new(65);
        life.open(Durability::Buffered);
        life.append(vec![1; 100]);
        life.sync();
        life.disk.fail_index();
        life.append(vec![2; 100]);
        if looks {
            // Until the helper thread has found out.
            std::thread::sleep(Duration::from_millis(1300));
        }
        let synced = life.writer().sync();
        assert_eq!(life.writer().durable(), 1, "{synced:?}");
        assert!(matches!(synced, Err(Error::Io { .. })), "{synced:?}");
        assert!(matches!(life.writer().append(b"never"), Err(Error::Failed { .. })));
        life.check(Effort { cuts: 10, ..SMOKE });
    }
}

/// Records come all the time, and at no time is one older than the interval and not durable.
#[test]
fn interval_flushes_in_time() {
    let interval = Duration::from_millis(50);
    let mut life = Life::new(71);
    life.open(Durability::Interval(interval));
    let (begin, mut appended, mut last) = (Instant::now(), Vec::new(), Instant::now());
    while begin.elapsed() < Duration::from_millis(2500) {
        // What this thread did not get of the processor, the other did not get either.
        let stalled = last.elapsed();
        last = Instant::now();
        life.append(vec![3; 20]);
        appended.push(Instant::now());
        let age = appended.get(life.writer().durable() as usize).map_or(Duration::ZERO, Instant::elapsed);
        assert!(age < interval + stalled + Duration::from_secs(1), "a record of {age:?} ago is not durable");
        std::thread::sleep(Duration::from_millis(5));
    }
    life.check(Effort { cuts: 10, all_up_to: 0, random: 2, again: 0 });
}

/// Runs that are closed or killed, in any mode, on an index that is there or was removed; then the power goes.
fn any_life(seed: u64, effort: Effort) -> usize {
    let mut life = Life::new(seed);
    let runs = 1 + life.random.below(4);
    for run in 0..runs {
        let durability = [Durability::Buffered, INTERVAL, Durability::Sync][life.random.below(3) as usize];
        life.open(durability);
        if life.random.below(4) == 0 {
            // The index comes to its second page.
            for _ in 0..20 + life.random.below(12) {
                life.append(vec![5; 9]);
                life.sync();
            }
        }
        let steps = life.random.below(30);
        (0..steps).for_each(|_| life.step());
        match life.random.below(3) {
            _ if run + 1 == runs => {}
            0 => life.kill(),
            _ => {
                life.close();
                if life.random.below(4) == 0 {
                    std::fs::remove_file(life.dir.join(LOG).with_extension("log.idx")).unwrap();
                    life.disk.promise(life.published, "the index was removed");
                }
            }
        }
    }
    if life.random.below(3) == 0 {
        life.close();
    }
    life.check(effort)
}

/// Lives from IMMUTA_SEED on, IMMUTA_ROUNDS of them.
fn lives(first: u64, rounds: u64, effort: Effort) {
    let begin = Instant::now();
    let rounds = std::env::var("IMMUTA_ROUNDS").map_or(rounds, |rounds| rounds.parse().expect("a number"));
    let first = std::env::var("IMMUTA_SEED").map_or(first, |seed| seed.parse().expect("a number"));
    let mut states = 0;
    for seed in first..first + rounds {
        states += any_life(seed, effort);
        if rounds > 20 {
            tell(&format!("up to seed {seed}"), states, begin);
        }
    }
    tell("any life", states, begin);
}

#[test]
fn any_life_smoke() {
    lives(101, 8, Effort { cuts: 20, ..SMOKE });
}

#[test]
#[ignore = "takes hours: 200 lives, and all subsets of up to 12 pages"]
fn any_life_long() {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    lives(now, 200, Effort { cuts: 4, all_up_to: 12, random: 50, again: 5 });
}
