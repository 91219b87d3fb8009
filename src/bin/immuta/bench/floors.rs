//! The machine's floors: the least that anybody could do to the same end, measured in the same run.

use std::hint::{black_box, spin_loop};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use immuta::Durability;
use serde_json::json;

use super::bare::{self, BareFile, Words};
use super::figures::Times;
use super::part::{Done, Scene, bare_failure};
use crate::clock::{now_ns, process_cpu_ns, wait_until};
use crate::failure::Failure;
use crate::payload::FILLER;
use crate::place;

/// The step by which a bare file grows, in bytes.
const STEP_BYTES: u64 = 8 << 20;
const PAGE_BYTES: u64 = 4096;
/// Every sleep ends by then, so that a stop is seen.
const SLEEP_BOUND: Duration = Duration::from_millis(100);
/// The words of the hand-over: what is handed over, and the answer.
const WORD: usize = 0;
const ANSWER: usize = 1;

/// Stores what a log would hold into a mapped file: size, payload, count. The file grows by steps, or all of it is there and mapped.
///
/// Where the writer would flush, this does the two flushes that a count behind its record takes.
pub fn store(scene: &Scene, prepared: bool) -> Result<Done, Failure> {
    let plan = scene.plan;
    let records = if prepared { plan.prepared().1 } else { plan.room() };
    let len = BareFile::BEGIN + records * (8 + plan.size);
    let mut file = BareFile::create(&scene.bare(), len).map_err(bare_failure)?;
    file.grow(if prepared { len } else { BareFile::BEGIN }).map_err(bare_failure)?;
    // The first store into a page maps it.
    (0..file.ready() / PAGE_BYTES).for_each(|page| file.store(page * PAGE_BYTES + 8, &[0]));
    let bytes = vec![FILLER; plan.size as usize];
    let flushes = plan.durability == Durability::Sync;
    if !scene.is_to_begin()? {
        return Ok((json!(null), None));
    }
    let mut at = BareFile::BEGIN;
    let pass = scene.measure(plan.records.min(records), |record| {
        let bytes = black_box(&bytes[..]);
        let end = at + 8 + bytes.len() as u64;
        if end > file.ready() {
            file.grow((file.ready() + STEP_BYTES).max(end)).map_err(bare_failure)?;
        }
        file.store(at, &(bytes.len() as u64).to_le_bytes());
        file.store(at + 8, bytes);
        if flushes {
            file.flush().map_err(bare_failure)?;
        }
        file.publish(record + 1);
        if flushes {
            file.flush().map_err(bare_failure)?;
        }
        at = end;
        Ok(())
    })?;
    Ok((pass.to_json(), None))
}

/// Where the two processes of a hand-over meet: where control pages are, which is memory wherever there is some.
fn words() -> PathBuf {
    place::control_directory().join("bench.words")
}

/// Hands times over to another process by a word that both have mapped, each at its time; wakes the other one if it sleeps.
pub fn hand_over(scene: &Scene) -> Result<Done, Failure> {
    let (plan, parent) = (scene.plan, scene.parent);
    let words = Words::create(&words()).map_err(bare_failure)?;
    if !scene.is_to_begin()? {
        return Ok((json!(null), None));
    }
    let begin = now_ns();
    for n in 1..=plan.warm_up + plan.records {
        let due = plan.due_ns(begin, n);
        if !wait_until(due, || parent.is_stopped()) {
            break;
        }
        words.word(WORD).store(due, Ordering::Release);
        if !plan.spin {
            bare::wake_one(words.word(WORD));
        }
        // The next one would take its place before it was seen. It is late then, and counted from its own time.
        while words.word(ANSWER).load(Ordering::Acquire) != due && !parent.is_stopped() {
            spin_loop();
        }
    }
    Ok((json!({}), None))
}

/// Takes over what [`hand_over`] hands over, and says how late it came.
pub fn take_over(scene: &Scene) -> Result<Done, Failure> {
    let (plan, parent) = (scene.plan, scene.parent);
    let words = Words::open(&words()).map_err(bare_failure)?;
    parent.tell("ready")?;
    let (mut times, mut last, mut cpu_ns) = (Times::new(), 0, process_cpu_ns());
    for n in 0..plan.warm_up + plan.records {
        let due = loop {
            let due = words.word(WORD).load(Ordering::Acquire);
            if due != last {
                break due;
            }
            if parent.is_stopped() {
                return Ok((json!(null), None));
            }
            if plan.spin {
                spin_loop();
            } else {
                bare::wait_on(words.word(WORD), due, SLEEP_BOUND);
            }
        };
        let late_ns = now_ns().saturating_sub(due);
        words.word(ANSWER).store(due, Ordering::Release);
        if n >= plan.warm_up {
            times.add(late_ns);
        } else if n + 1 == plan.warm_up {
            cpu_ns = process_cpu_ns();
        }
        last = due;
    }
    Ok((json!({ "times": times.to_json(), "cpu_ns": process_cpu_ns() - cpu_ns }), None))
}
