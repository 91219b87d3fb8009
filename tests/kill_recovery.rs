//! The injury: a recovery is killed in its midst, and the next one finds less than it had found, keeps what it had set aside, sets
//! it aside twice, or refuses what it has made itself.
//!
//! Each recovery is killed at every one of its points, and what comes next at a random one; then it must end where a recovery
//! that nobody kills ends. `cargo test --release --features faults --test kill_recovery`.

mod support;

use immuta::Evidence;
use support::content::Random;
use support::process::Helper;
use support::scene::Scene;
use support::stamp::{Stamp, assert_are_whole};
use support::{Log, encode, parse, positions};

/// Points that are tried where there may be one more.
const POINTS_MOST: u64 = 5000;

/// What a writer left that was killed while it did nothing.
fn killed_writer(mode: &str) -> Scene {
    killed_writer_of(&Log::in_memory(), mode)
}

fn killed_writer_of(log: &Log, mode: &str) -> Scene {
    let mut writer = Helper::faulty("write", log, &format!("mode={mode} run=7 ops=16 hold=1"), "");
    while writer.line() != "holding" {}
    writer.kill();
    Scene::of(log)
}

/// Where recoveries end.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    records: Vec<Vec<u8>>,
    /// The bytes of each side file.
    lost: Vec<Vec<u8>>,
}

fn lost(log: &Log) -> Vec<Vec<u8>> {
    let names = std::fs::read_dir(log.dir.path()).expect("the directory").flatten().map(|entry| entry.path());
    let is_lost = |name: &std::path::PathBuf| name.display().to_string().contains("events.log.lost-");
    names.filter(is_lost).map(|name| std::fs::read(name).expect("a side file")).collect()
}

/// Recovers without a fault, twice; the second time there must be nothing to do.
fn outcome(log: &Log, options: &str, context: &str) -> Outcome {
    let said = Helper::faulty("recover", log, options, "").rest();
    assert_eq!(said.last().map(String::as_str), Some("end 0"), "{context}: {said:?}");
    assert!(said.iter().all(|line| !line.starts_with("error")), "{context}: {said:?}");
    let records = log.parse();
    assert_are_whole(&records, context);
    assert!(log.bytes() == encode(&records), "{context}: it is not cut to its exact end");
    let outcome = Outcome { records, lost: lost(log) };
    let writer = log.writer();
    let recovery = writer.stat().expect("stat").recovery.expect("a writer's");
    assert_eq!(
        (recovery.evidence, recovery.discarded),
        (Evidence::Closed, None),
        "{context}: something was left to do"
    );
    writer.close().expect("a clean close");
    assert!(
        log.parse() == outcome.records && lost(log) == outcome.lost,
        "{context}: a second recovery changes something"
    );
    let left: Vec<_> =
        std::fs::read_dir(log.dir.path()).expect("the directory").flatten().map(|e| e.file_name()).collect();
    assert_eq!(
        left.len(),
        3 + outcome.lost.len(),
        "{context}: log, index, pages, side files, and nothing else: {left:?}"
    );
    outcome
}

/// Kills the recovery of the scene at every point; the outcome, and the number of points.
fn kill_at_every_point(scene: &Scene, options: &str) -> (Outcome, u64) {
    let reference = outcome(&scene.restore(), options, "nobody kills it");
    let counted = parse(&scene.log).len();
    assert!(reference.records.len() == counted || reference.lost.len() == 1, "nothing counted is dropped silently");
    let mut random = Random(5);
    for n in 1..POINTS_MOST {
        let context = format!("{options} kill:{n}");
        let log = scene.restore();
        let said = Helper::faulty("recover", &log, options, &format!("kill:{n}")).rest();
        let ended = said.last().is_some_and(|last| last.starts_with("end"));
        let now = log.parse();
        assert!(now.starts_with(&reference.records), "{context}: the name leads to less than what is kept");
        assert!(now.len() == counted || lost(&log) == reference.lost, "{context}: what is cut is not set aside");
        if random.below(2) == 0 {
            Helper::faulty("recover", &log, options, &format!("kill:{}", 1 + random.below(n + 40))).rest();
        }
        assert!(outcome(&log, options, &context) == reference, "{context}: it ends elsewhere");
        if ended {
            return (reference, n - 1);
        }
    }
    panic!("there is no end of points");
}

fn converges(what: &str, scene: &Scene, options: &str, discards: bool) {
    let begin = std::time::Instant::now();
    let (outcome, points) = kill_at_every_point(scene, options);
    println!("{what}: killed at each of {points} points in {:.1} s", begin.elapsed().as_secs_f32());
    assert!(points > 80, "{what}: {points} points: the points are not met");
    assert!(!outcome.records.is_empty(), "{what}: it is about records that are kept");
    assert_eq!(outcome.lost.len(), usize::from(discards), "{what}: it is about this");
}

#[test]
fn of_a_killed_writer() {
    converges("a killed writer", &killed_writer("interval"), "mode=interval", false);
}

#[test]
fn of_a_log_without_an_index() {
    converges("no index", &killed_writer("buffered").without_index(), "mode=buffered", false);
}

#[test]
fn of_a_log_whose_index_is_damaged() {
    let scene = killed_writer("buffered");
    converges("a damaged header of the index", &scene.clone().with_index_flipped_at(20), "mode=buffered", false);
    // The first entry tells of the writer's run.
    let scene = scene.with_index_flipped_at(64 + 5);
    converges("a damaged entry of the index", &scene, "mode=buffered", false);
    converges("a damaged entry of the index, and no page", &scene.without_page(), "mode=buffered", false);
}

/// Found by this test: with the entry that tells of the boot the proof of it was gone, and that was taken for a crash of the machine.
#[test]
fn of_a_log_whose_index_does_not_tell_of_the_last_run() {
    let log = Log::in_memory();
    Helper::faulty("write", &log, "mode=buffered run=6 ops=8", "").rest();
    let scene = killed_writer_of(&log, "buffered").with_last_run_damaged();
    converges("the damaged entry of a run", &scene, "mode=buffered", false);
}

#[test]
fn after_a_power_cut() {
    converges("a power cut, in sync mode", &killed_writer("sync").rebooted(), "mode=sync", false);
    converges("a power cut, and records to be set aside", &killed_writer("buffered").rebooted(), "mode=buffered", true);
}

#[test]
fn after_a_failed_flush() {
    converges("a failed flush", &killed_writer("buffered").failed(), "mode=buffered", true);
}

#[test]
fn of_a_repair() {
    let scene = killed_writer("buffered");
    let records = parse(&scene.log);
    // Between two syncs, so that there is something before it that is kept.
    let damaged = records.iter().position(|record| Stamp::of(record).expect("its stamp").op == 7).expect("a record");
    let scene = scene.with_log_flipped_at(positions(&records)[damaged] as usize + 20).rebooted();
    converges("a repair", &scene, "mode=buffered repair=1", true);
}
