//! What one process has measured, how it tells its parent, and what several rounds of it come to.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::clock;

/// Some records, and what they took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pass {
    pub records: u64,
    pub elapsed_ns: u64,
    /// The processor's time of two parties: of the thread that did it and its whole process, unless a benchmark says otherwise.
    pub cpu_ns: [u64; 2],
}

impl Pass {
    pub fn ns_per_record(&self) -> f64 {
        self.elapsed_ns as f64 / self.records.max(1) as f64
    }

    pub fn records_per_second(&self) -> f64 {
        self.records as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }

    /// The processor's times, in seconds for a million records.
    pub fn cpu_s_per_million(&self) -> [f64; 2] {
        self.cpu_ns.map(|ns| cpu_s_per_million(ns, self.records))
    }

    pub fn to_json(self) -> Value {
        json!([self.records, self.elapsed_ns, self.cpu_ns[0], self.cpu_ns[1]])
    }

    pub fn of_json(value: &Value) -> Option<Pass> {
        let numbers: Vec<u64> = value.as_array()?.iter().map(Value::as_u64).collect::<Option<_>>()?;
        let &[records, elapsed_ns, thread, process] = &numbers[..] else { return None };
        Some(Pass { records, elapsed_ns, cpu_ns: [thread, process] })
    }
}

/// A time of the processor, in seconds for a million records.
pub fn cpu_s_per_million(cpu_ns: u64, records: u64) -> f64 {
    cpu_ns as f64 / 1e3 / records.max(1) as f64
}

/// Measures one pass.
#[derive(Debug)]
pub struct Stopwatch {
    begin: Pass,
}

impl Stopwatch {
    pub fn start() -> Stopwatch {
        let cpu_ns = cpu_ns();
        // Time last: what comes before is not in it.
        Stopwatch { begin: Pass { records: 0, elapsed_ns: clock::now_ns(), cpu_ns } }
    }

    /// When it was started.
    pub fn begin_ns(&self) -> u64 {
        self.begin.elapsed_ns
    }

    pub fn stop(&self, records: u64) -> Pass {
        let elapsed_ns = clock::now_ns() - self.begin.elapsed_ns;
        let (begin, end) = (self.begin.cpu_ns, cpu_ns());
        Pass { records, elapsed_ns, cpu_ns: [end[0] - begin[0], end[1] - begin[1]] }
    }
}

fn cpu_ns() -> [u64; 2] {
    [clock::thread_cpu_ns(), clock::process_cpu_ns()]
}

/// The passes of one kind, of which there is at least one.
#[derive(Clone, Debug, Default)]
pub struct Passes {
    passes: Vec<Pass>,
}

impl Passes {
    pub fn add(&mut self, pass: Pass) {
        self.passes.push(pass);
        self.passes.sort_by(|one, other| one.ns_per_record().total_cmp(&other.ns_per_record()));
    }

    pub fn rounds(&self) -> usize {
        self.passes.len()
    }

    /// The pass in the middle, the faster one of two: all its figures belong together, which those of a mean would not.
    pub fn median(&self) -> Pass {
        self.passes.get((self.passes.len().max(1) - 1) / 2).copied().unwrap_or_default()
    }

    pub fn fastest(&self) -> Pass {
        self.passes.first().copied().unwrap_or_default()
    }

    pub fn longest_ns(&self) -> u64 {
        self.passes.iter().map(|pass| pass.elapsed_ns).max().unwrap_or_default()
    }

    pub fn slowest(&self) -> Pass {
        self.passes.last().copied().unwrap_or_default()
    }
}

/// Times of single events, from a nanosecond to a minute, to three digits.
#[derive(Clone, Debug)]
pub struct Times {
    histogram: Histogram<u64>,
}

impl Times {
    /// The quantiles that are shown.
    pub const QUANTILES: [(&'static str, f64); 5] =
        [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

    pub fn new() -> Times {
        Times { histogram: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order") }
    }

    #[inline]
    pub fn add(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
    }

    pub fn samples(&self) -> u64 {
        self.histogram.len()
    }

    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }

    pub fn max_ns(&self) -> u64 {
        self.histogram.max()
    }

    /// Adds those of another round.
    pub fn merge(&mut self, other: &Times) {
        self.histogram.add(&other.histogram).expect("both have the same bounds");
    }

    pub fn to_json(&self) -> Value {
        let pairs = self.histogram.iter_recorded().map(|step| json!([step.value_iterated_to(), step.count_at_value()]));
        Value::Array(pairs.collect())
    }

    pub fn of_json(value: &Value) -> Option<Times> {
        let mut times = Times::new();
        for pair in value.as_array()? {
            let (ns, count) = (pair.get(0)?.as_u64()?, pair.get(1)?.as_u64()?);
            times.histogram.saturating_record_n(ns, count);
        }
        Some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(records: u64, elapsed_ns: u64) -> Pass {
        Pass { records, elapsed_ns, cpu_ns: [100, 5000] }
    }

    #[test]
    fn the_median_is_one_of_the_passes() {
        let mut passes = Passes::default();
        assert_eq!(passes.median(), Pass::default());
        for elapsed in [900, 100, 500, 300] {
            passes.add(pass(100, elapsed));
        }
        assert_eq!((passes.median(), passes.rounds()), (pass(100, 300), 4));
        assert_eq!((passes.fastest(), passes.slowest()), (pass(100, 100), pass(100, 900)));
        assert_eq!(passes.longest_ns(), 900);
        let median = passes.median();
        assert_eq!((median.ns_per_record(), median.records_per_second()), (3.0, 1e9 / 3.0));
        // 100 records in 5000 ns: a million in 50 ms.
        assert_eq!(median.cpu_s_per_million(), [0.001, 0.05]);
    }

    #[test]
    fn figures_survive_the_pipe() {
        let pass = pass(7, 9);
        assert_eq!(Pass::of_json(&pass.to_json()), Some(pass));
        assert_eq!(Pass::of_json(&json!([1, 2, 3])), None);
        let mut times = Times::new();
        (0..100_000).for_each(|n| times.add(n * n));
        let mut told = Times::of_json(&times.to_json()).unwrap();
        for (_, quantile) in Times::QUANTILES {
            assert_eq!(told.quantile_ns(quantile), times.quantile_ns(quantile), "{quantile}");
        }
        assert_eq!((told.samples(), told.max_ns()), (times.samples(), times.max_ns()));
        told.merge(&times);
        assert_eq!((told.samples(), told.quantile_ns(0.5)), (200_000, times.quantile_ns(0.5)));
        assert!(Times::of_json(&json!([[1]])).is_none());
    }
}
