//! The workload: the same for every peer.
//!
//! A payload is the intended time of sending (0 in a run that goes as fast as it can), a sequence whose top bit marks the last
//! record, and bytes of which no two neighbours are alike. The consumer adds all bytes up, as numbers of 8 bytes.

use std::io::{BufRead, Read, Write};
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;

use crate::peer::{Consumer, Peer, Producer, Result};
use crate::run::{Run, STOP, is_stopped};

const LAST: u64 = 1 << 63;
/// Latencies of what is due sooner after the first record are not counted: code and caches are cold, and the processes may not have found their cores.
const WARM_UP_NS: u64 = 100_000_000;
/// What is said of latencies, in percent.
const PERCENTILES: [f64; 12] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0];

pub fn play<P: Peer>(run: &Run) -> Result<()> {
    match run.role.as_str() {
        "produce" => produce::<P>(run),
        "consume" => consume::<P>(run),
        role => Err(format!("no role: {role}").into()),
    }
}

fn produce<P: Peer>(run: &Run) -> Result<()> {
    let mut producer = P::producer(run)?;
    say("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    watch_for_stop();
    producer.start()?;
    let mut load = Load::new(run.size);
    let (cpu, process_cpu) = (thread_cpu_ns(), process_cpu_ns());
    let first = now_ns();
    let result =
        if run.rate == 0 { flat_out(run, &mut producer, &mut load) } else { paced(run, &mut producer, &mut load) };
    result.and_then(|()| producer.flush())?;
    let (cpu, process_cpu, end) = (thread_cpu_ns() - cpu, process_cpu_ns() - process_cpu, now_ns());
    let (sent, total) = (load.sent, load.total);
    say(&format!(
        r#"{{"sent":{sent},"total":{total},"first_ns":{first},"end_ns":{end},"thread_cpu_ns":{cpu},"process_cpu_ns":{process_cpu}}}"#
    ));
    while !is_stopped() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    producer.close();
    Ok(())
}

/// The payload of the next record.
struct Load {
    bytes: Vec<u8>,
    /// What all bytes but the first 16 add up to.
    rest: u64,
    sent: u64,
    total: u64,
}

impl Load {
    fn new(size: usize) -> Load {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 131 + 17) as u8).collect();
        Load { rest: sum(&bytes[16..]), bytes, sent: 0, total: 0 }
    }

    #[inline]
    fn next(&mut self, due: u64, last: bool) -> &[u8] {
        let sequence = self.sent | if last { LAST } else { 0 };
        self.bytes[..8].copy_from_slice(&due.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        self.total = self.total.wrapping_add(self.rest).wrapping_add(due).wrapping_add(sequence);
        self.sent += 1;
        &self.bytes
    }
}

fn flat_out(run: &Run, producer: &mut impl Producer, load: &mut Load) -> Result<()> {
    let deadline = now_ns() + (run.seconds * 1e9) as u64;
    let most = run.records_max();
    // The clock is looked at often enough for slow peers, and too rarely to matter to fast ones.
    let step = (65536 / run.size as u64).clamp(1, 64);
    loop {
        let last = load.sent + 1 == most || load.sent % step == step - 1 && now_ns() > deadline;
        producer.send(load.next(0, last))?;
        if last {
            return Ok(());
        }
    }
}

fn paced(run: &Run, producer: &mut impl Producer, load: &mut Load) -> Result<()> {
    let interval = 1e9 / run.rate as f64;
    let count = ((run.rate as f64 * run.seconds) as u64).clamp(1, run.records_max());
    let begin = now_ns() + 1_000_000;
    // A peer that cannot keep up is not waited for for ever; what it is late by shows by then.
    let deadline = begin + (run.seconds * 2e9) as u64;
    let mut now = now_ns();
    for n in 0..count {
        let due = begin + (n as f64 * interval) as u64;
        if now < due && n > 0 {
            producer.flush()?;
            now = now_ns();
        }
        while now < due {
            std::hint::spin_loop();
            now = now_ns();
        }
        let last = n + 1 == count || now > deadline;
        producer.send(load.next(due, last))?;
        if last {
            return Ok(());
        }
        now = now_ns();
    }
    Ok(())
}

/// What a consumer has seen.
struct Seen {
    expected: u64,
    received: u64,
    lost: u64,
    disordered: u64,
    total: u64,
    ended_ns: u64,
    /// Records that are due before are not counted among the late ones.
    counted_from: u64,
    late: Histogram<u64>,
}

impl Seen {
    #[inline]
    fn take(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<8>();
        let (due, sequence) = (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]));
        if due != 0 {
            let late = now_ns().saturating_sub(due).max(1);
            if self.expected == 0 {
                self.counted_from = due + WARM_UP_NS;
            }
            if due >= self.counted_from {
                self.late.saturating_record(late);
            }
        }
        self.total = self.total.wrapping_add(sum(bytes));
        let number = sequence & !LAST;
        if number != self.expected {
            if number > self.expected {
                self.lost += number - self.expected;
            } else {
                self.disordered += 1;
            }
        }
        self.expected = number + 1;
        self.received += 1;
        if sequence & LAST != 0 {
            self.ended_ns = now_ns();
        }
    }
}

fn consume<P: Peer>(run: &Run) -> Result<()> {
    let mut consumer = P::consumer(run)?;
    let late = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let mut seen =
        Seen { expected: 0, received: 0, lost: 0, disordered: 0, total: 0, ended_ns: 0, counted_from: 0, late };
    say("ready");
    watch_for_stop();
    let mut idle = run.idle();
    let cpu = process_cpu_ns();
    // Stopped before the last record came: the number of records tells what is missing.
    while seen.ended_ns == 0 && !is_stopped() {
        if consumer.receive(&mut |bytes| seen.take(bytes))? {
            idle.reset();
        } else if idle.wait().is_err() {
            break;
        }
    }
    let percentiles = |p: &f64| format!(r#""{p}":{}"#, seen.late.value_at_percentile(*p));
    let late = if seen.late.is_empty() { String::new() } else { PERCENTILES.each_ref().map(percentiles).join(",") };
    let Seen { received, lost, disordered, total, ended_ns, .. } = seen;
    say(&format!(
        r#"{{"received":{received},"lost":{lost},"disordered":{disordered},"total":{total},"ended_ns":{ended_ns},"process_cpu_ns":{},"late_ns":{{{late}}}}}"#,
        process_cpu_ns() - cpu
    ));
    Ok(())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody to say it to: whoever started this process has gone, and it ends by itself.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn watch_for_stop() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
}

/// The sum of all bytes, taken as numbers of 8 bytes: touches each of them.
#[inline(always)]
fn sum(bytes: &[u8]) -> u64 {
    let (numbers, rest) = bytes.as_chunks::<8>();
    let sum = numbers.iter().fold(0u64, |sum, number| sum.wrapping_add(u64::from_le_bytes(*number)));
    rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// CLOCK_MONOTONIC, which all processes of the machine share.
#[inline(always)]
fn now_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn process_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

#[inline(always)]
fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clocks exist on every Linux, and the result is written to a live timespec.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let late = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        Seen { expected: 0, received: 0, lost: 0, disordered: 0, total: 0, ended_ns: 0, counted_from: 0, late }
    }

    #[test]
    fn what_is_whole_adds_up_and_ends_with_the_last() {
        let (mut load, mut seen) = (Load::new(100), seen());
        for n in 0..10 {
            seen.take(load.next(0, n == 9));
        }
        assert_eq!((seen.received, seen.lost, seen.disordered, seen.total), (10, 0, 0, load.total));
        assert!(seen.ended_ns > 0 && seen.late.is_empty());
    }

    #[test]
    fn a_record_that_is_missing_comes_twice_or_is_damaged_is_seen() {
        let (mut load, mut seen) = (Load::new(64), seen());
        let records: Vec<Vec<u8>> = (0..4).map(|_| load.next(0, false).to_vec()).collect();
        for n in [0, 2, 2, 3] {
            seen.take(&records[n]);
        }
        assert_eq!((seen.lost, seen.disordered), (1, 1));
        let mut damaged = load.next(0, false).to_vec();
        let before = seen.total;
        damaged[63] ^= 1;
        seen.take(&damaged);
        assert_ne!(seen.total - before, load.rest + 4);
    }

    #[test]
    fn lateness_counts_from_the_intended_time() {
        let (mut load, mut seen) = (Load::new(64), seen());
        let now = now_ns();
        seen.take(load.next(now - 5_000_000 - WARM_UP_NS, false));
        seen.take(load.next(now - 5_000_001, false));
        assert!(seen.late.is_empty(), "neither the first nor what is due soon after it counts");
        seen.take(load.next(now - 5_000_000, true));
        assert_eq!(seen.late.len(), 1);
        assert!(seen.late.min() >= 4_900_000);
    }
}
