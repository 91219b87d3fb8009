//! What a process of the demo has measured, and the line in which it tells its parent.

use std::fmt;
use std::str::FromStr;

use hdrhistogram::Histogram;

/// How often a part tells what it has measured, in nanoseconds.
pub const REPORT_INTERVAL_NS: u64 = 100_000_000;

/// The two parts of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The producer appends as fast as it can: rates.
    FlatOut,
    /// The producer appends at intervals: latencies.
    Paced,
}

/// In a timestamp: the record belongs to the paced phase.
const PACED: u64 = 1 << 63;

/// The first bytes of a record that carries the time of its append.
pub fn stamp(phase: Phase, ns: u64) -> [u8; 8] {
    (ns | if phase == Phase::Paced { PACED } else { 0 }).to_le_bytes()
}

/// The phase and the time that a record carries, if it does.
pub fn stamped(payload: &[u8]) -> Option<(Phase, u64)> {
    let stamp = u64::from_le_bytes(*payload.first_chunk()?);
    let phase = if stamp & PACED == 0 { Phase::FlatOut } else { Phase::Paced };
    (stamp != 0).then_some((phase, stamp & !PACED))
}

/// Of records of `size` bytes that come flat out, one in so many carries the time: one in about 8 KiB.
pub fn stamp_every(size: u64) -> u64 {
    ((8 << 10) / (size + 8)).next_power_of_two().clamp(1, 128)
}

/// Latencies, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub samples: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

/// What one process has seen of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Records that it appended or received.
    pub records: u64,
    /// Of those, the ones between its first and its last look at the clock.
    pub timed_records: u64,
    /// What lies between those two looks.
    pub elapsed_ns: u64,
    /// Without samples where it appends, and where records have no room for the time.
    pub latency: Latency,
}

impl Figures {
    pub fn records_per_second(&self) -> f64 {
        if self.elapsed_ns == 0 { 0.0 } else { self.timed_records as f64 * 1e9 / self.elapsed_ns as f64 }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { records, timed_records, elapsed_ns, latency } = self;
        let Latency { samples, p50_ns, p99_ns, p999_ns, max_ns } = latency;
        write!(f, "{records} {timed_records} {elapsed_ns} {samples} {p50_ns} {p99_ns} {p999_ns} {max_ns}")
    }
}

impl FromStr for Figures {
    type Err = String;

    fn from_str(text: &str) -> Result<Figures, String> {
        let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[records, timed_records, elapsed_ns, samples, p50_ns, p99_ns, p999_ns, max_ns]) => {
                let latency = Latency { samples, p50_ns, p99_ns, p999_ns, max_ns };
                Ok(Figures { records, timed_records, elapsed_ns, latency })
            }
            _ => Err(format!("not a report: {text}")),
        }
    }
}

/// Measures one phase.
#[derive(Debug)]
pub struct Meter {
    records: u64,
    /// The count and the time of the first and the last look at the clock.
    first: Option<(u64, u64)>,
    last: (u64, u64),
    latency: Histogram<u64>,
}

impl Meter {
    pub fn new() -> Meter {
        // Up to a minute, to three digits.
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order");
        Meter { records: 0, first: None, last: (0, 0), latency }
    }

    pub fn count(&mut self, records: u64) {
        self.records += records;
    }

    pub fn look(&mut self, now_ns: u64) {
        self.last = (self.records, now_ns);
        self.first.get_or_insert(self.last);
    }

    pub fn sample(&mut self, latency_ns: u64) {
        self.latency.saturating_record(latency_ns.max(1));
    }

    /// What was measured, once there was something.
    pub fn figures(&self) -> Option<Figures> {
        let (records, ns) = self.first?;
        let latency = Latency {
            samples: self.latency.len(),
            p50_ns: self.latency.value_at_quantile(0.5),
            p99_ns: self.latency.value_at_quantile(0.99),
            p999_ns: self.latency.value_at_quantile(0.999),
            max_ns: self.latency.max(),
        };
        Some(Figures {
            records: self.records,
            timed_records: self.last.0 - records,
            elapsed_ns: self.last.1 - ns,
            latency,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_the_pipe() {
        let mut meter = Meter::new();
        assert_eq!(meter.figures(), None);
        meter.look(1_000);
        meter.count(500);
        meter.sample(70);
        meter.look(2_000);
        let figures = meter.figures().unwrap();
        assert_eq!((figures.records, figures.timed_records, figures.elapsed_ns), (500, 500, 1_000));
        assert_eq!(figures.records_per_second(), 5e8);
        assert_eq!(figures.to_string().parse(), Ok(figures));
        assert!("1 2 3".parse::<Figures>().is_err());
    }

    #[test]
    fn a_record_says_its_phase_and_time() {
        assert_eq!(stamped(&stamp(Phase::Paced, 12)), Some((Phase::Paced, 12)));
        assert_eq!(stamped(&stamp(Phase::FlatOut, 12)), Some((Phase::FlatOut, 12)));
        assert_eq!(stamped(&[0; 64]), None);
        assert_eq!(stamped(&[1; 7]), None);
        assert_eq!((stamp_every(0), stamp_every(64), stamp_every(1 << 20)), (128, 128, 1));
    }
}
