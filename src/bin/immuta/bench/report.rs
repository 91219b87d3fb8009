//! What is printed: a table for people, or an object a line.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};

use serde_json::{Map, Value, json};

use super::figures::{Passes, Times};
use crate::failure::Failure;
use crate::output::{Stdout, stdout};
use crate::signals::Signals;
use crate::units;

/// How wide the labels of rows are.
const LABEL: usize = 27;

/// Standard output, and a line on the terminal that says what goes on.
#[derive(Debug)]
pub struct Report<'a> {
    out: BufWriter<Stdout<'a>>,
    is_json: bool,
    size: u64,
    has_terminal: bool,
    has_status: bool,
    every_row: Map<String, Value>,
}

/// A row of rates.
#[derive(Debug)]
pub struct Rates<'a> {
    /// In JSON.
    pub name: &'a str,
    /// In the table.
    pub label: &'a str,
    pub passes: &'a Passes,
    /// Whose times of the processor the passes have.
    pub cpu: [&'a str; 2],
    pub floor: Option<&'a Passes>,
    /// In JSON alone.
    pub more: &'a [(&'a str, Value)],
}

/// A row of percentiles.
#[derive(Debug)]
pub struct Delays<'a> {
    pub name: &'a str,
    pub label: &'a str,
    pub times: &'a Times,
    pub cpu_s_per_million: Option<f64>,
    pub floor: Option<&'a Times>,
    pub more: &'a [(&'a str, Value)],
}

impl<'a> Report<'a> {
    pub fn new(bench: &str, is_json: bool, size: u64, signals: &'a Signals) -> Result<Report<'a>, Failure> {
        let has_terminal = io::stderr().is_terminal();
        let mut every_row = Map::new();
        every_row.insert("bench".to_owned(), json!(bench));
        every_row.insert("size_bytes".to_owned(), json!(size));
        Ok(Report { out: stdout(Some(signals))?, is_json, size, has_terminal, has_status: false, every_row })
    }

    /// From now on each object has this.
    pub fn every_row(&mut self, key: &str, value: Value) {
        self.every_row.insert(key.to_owned(), value);
    }

    /// Says what goes on, where somebody looks on.
    pub fn status(&mut self, text: &str) -> Result<(), Failure> {
        if self.has_terminal {
            self.has_status = true;
            // A terminal that went away is told when a row is printed.
            let _ = write!(io::stderr(), "\r\x1b[K{text} …");
        }
        Ok(())
    }

    /// Takes away what [`status`](Report::status) has said.
    pub fn erase(&mut self) {
        if std::mem::take(&mut self.has_status) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    pub fn title(&mut self, text: &str) -> Result<(), Failure> {
        self.text(text)
    }

    /// A line for people.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        if self.is_json { Ok(()) } else { self.print(text) }
    }

    fn print(&mut self, line: &str) -> Result<(), Failure> {
        self.erase();
        let printed = writeln!(self.out, "{}", line.trim_end()).and_then(|()| self.out.flush());
        printed.map_err(|error| self.out.get_ref().failure(error))
    }

    fn object(&mut self, name: &str, fields: Value, more: &[(&str, Value)]) -> Result<(), Failure> {
        let mut object = self.every_row.clone();
        object.insert("row".to_owned(), json!(name));
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        object.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.print(&Value::Object(object).to_string())
    }

    pub fn rates_head(&mut self, cpu: [&str; 2]) -> Result<(), Failure> {
        let [one, other] = cpu;
        self.text(&format!("{:<LABEL$}{:39}{:>22}", "", "", "CPU s/million records"))?;
        self.text(&format!(
            "{:<LABEL$}{:>11}{:>14}{:>11}{:>13}{:>12}{:>10}",
            "", "ns/record", "records/s", "GB/s", one, other, "to floor"
        ))
    }

    pub fn rates(&mut self, row: &Rates) -> Result<(), Failure> {
        let median = row.passes.median();
        let (ns, per_second) = (median.ns_per_record(), median.records_per_second());
        let payload_bytes = per_second * self.size as f64;
        let [one, other] = median.cpu_s_per_million();
        let floor = row.floor.map(|floor| floor.median().ns_per_record());
        let ratio = floor.filter(|floor| *floor > 0.0).map(|floor| ns / floor);
        if !self.is_json {
            let mut line =
                format!("{:<LABEL$}{ns:>11.1}{:>14}{:>11.3}", row.label, units::rate(per_second), payload_bytes / 1e9);
            // Writing to a string does not fail.
            let _ = write!(line, "{one:>13.4}{other:>12.4}");
            let _ = ratio.map(|ratio| write!(line, "{ratio:>10.2}"));
            return self.print(&line);
        }
        let mut fields = json!({
            "rounds": row.passes.rounds(),
            "records": median.records,
            "elapsed_ns": median.elapsed_ns,
            "ns_per_record": ns,
            "ns_per_record_min": row.passes.fastest().ns_per_record(),
            "ns_per_record_max": row.passes.slowest().ns_per_record(),
            "records_per_second": per_second,
            "payload_bytes_per_second": payload_bytes,
            "floor_ns_per_record": floor,
            "floor_ratio": ratio,
        });
        for (who, seconds) in row.cpu.into_iter().zip([one, other]) {
            fields[format!("{who}_cpu_s_per_million_records")] = json!(seconds);
        }
        self.object(row.name, fields, row.more)
    }

    /// With columns for the processor's time and the floor, or without.
    pub fn delays_head(&mut self, what: &str, compared: bool) -> Result<(), Failure> {
        let mut line = format!("{what:<LABEL$}");
        if line.chars().count() > LABEL {
            self.text(&line)?;
            line = " ".repeat(LABEL);
        }
        Times::QUANTILES.iter().map(|(name, _)| *name).chain(["max"]).for_each(|name| {
            let _ = write!(line, "{name:>10}");
        });
        if compared {
            self.text(&format!("{:87}{:>10}{:>10}", "", "CPU s/M", "p50"))?;
            let _ = write!(line, "{:>10}{:>10}", "records", "to floor");
        }
        self.text(&line)
    }

    pub fn delays(&mut self, row: &Delays) -> Result<(), Failure> {
        let times = row.times;
        let quantiles = Times::QUANTILES.map(|(name, quantile)| (name, times.quantile_ns(quantile)));
        let floor = row.floor.map(|floor| floor.quantile_ns(0.5));
        let ratio = floor.filter(|floor| *floor > 0).map(|floor| quantiles[0].1 as f64 / floor as f64);
        if !self.is_json {
            let mut line = format!("{:<LABEL$}", row.label);
            for ns in quantiles.iter().map(|(_, ns)| *ns).chain([times.max_ns()]) {
                let _ = write!(line, "{:>10}", units::time(ns));
            }
            let _ = row.cpu_s_per_million.map(|seconds| write!(line, "{seconds:>10.2}"));
            let _ = ratio.map(|ratio| write!(line, "{ratio:>10.2}"));
            return self.print(&line);
        }
        let mut fields = json!({ "samples": times.samples(), "max_ns": times.max_ns() });
        for (name, ns) in quantiles {
            // p99.9 is no name for jq.
            fields[format!("{}_ns", name.replace('.', ""))] = json!(ns);
        }
        if row.cpu_s_per_million.is_some() {
            fields["cpu_s_per_million_records"] = json!(row.cpu_s_per_million);
            fields["floor_p50_ns"] = json!(floor);
            fields["floor_p50_ratio"] = json!(ratio);
        }
        self.object(row.name, fields, row.more)
    }
}
