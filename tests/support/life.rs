//! A life of a log on a modelled disk: runs of writers that end well or are killed, and then the power is cut.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use immuta::{Durability, Writer, WriterOptions};
use tempfile::TempDir;

use crate::cut::{Demand, Effort, LOG, check_all, place};
use crate::disk::{Cut, Disk};
use crate::support::content::{Random, fill};

/// Runs of writers on one log, on a disk that is modelled.
pub struct Life {
    place: TempDir,
    pub dir: PathBuf,
    pub disk: Arc<Disk>,
    pub writer: Option<Writer>,
    sync: bool,
    /// Where records and batches end.
    ends: BTreeSet<usize>,
    pub records: Vec<Vec<u8>>,
    pub published: usize,
    pub random: Random,
    seed: u64,
    runs: usize,
}

impl Life {
    pub fn new(seed: u64) -> Life {
        let place = place();
        let dir = place.path().join("0");
        std::fs::create_dir(&dir).unwrap();
        std::fs::create_dir(place.path().join("control")).unwrap();
        let disk = Disk::new(&dir, 0, 0);
        let (writer, ends) = (None, BTreeSet::from([0]));
        let (sync, records, published, random, runs) = (false, Vec::new(), 0, Random(seed), 0);
        Life { place, dir, disk, writer, sync, ends, records, published, random, seed, runs }
    }

    pub fn options(&self, durability: Durability) -> WriterOptions {
        let mut options = WriterOptions::new();
        options.control_dir(self.place.path().join("control")).durability(durability).window(2 << 20);
        options
    }

    pub fn open(&mut self, durability: Durability) {
        let mapped = self.random.below(4) > 0;
        let writer = self.options(durability).mapped(mapped).open(self.dir.join(LOG)).unwrap();
        assert_eq!(writer.stat().unwrap().records, self.published as u64, "a process that dies loses nothing");
        self.sync = durability == Durability::Sync;
        self.writer = Some(writer);
        self.runs += 1;
        self.answered("an open");
    }

    pub fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("an open log")
    }

    /// The writer has answered.
    pub fn answered(&mut self, what: &str) {
        let promised = match &self.writer {
            Some(_) if self.sync && what != "an open" => self.published,
            Some(writer) => writer.durable() as usize,
            None => 0,
        };
        self.disk.promise(promised, what);
    }

    pub fn payload(&mut self) -> Vec<u8> {
        let size = match self.random.below(20) {
            0 => 0,
            1 => 4000 + self.random.below(9000),
            2 | 3 => 1 + self.random.below(7),
            _ => self.random.below(900),
        };
        self.payload_of(size as usize)
    }

    pub fn payload_of(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        fill(&mut bytes, self.random.next());
        bytes
    }

    pub fn ask(&mut self, payloads: &[Vec<u8>]) {
        self.records.truncate(self.published);
        self.records.extend_from_slice(payloads);
        self.disk.ask(self.records.len());
        self.ends.insert(self.records.len());
    }

    pub fn append(&mut self, payload: Vec<u8>) {
        self.ask(std::slice::from_ref(&payload));
        self.writer().append(&payload).unwrap();
        self.published += 1;
        self.answered("an append");
    }

    pub fn large_batch(&mut self, n: usize, size: usize) {
        let payloads = (0..n).map(|_| self.payload_of(size)).collect();
        self.batch_of(payloads, true);
    }

    pub fn batch(&mut self, n: usize, commits: bool) {
        let payloads = (0..n).map(|_| self.payload()).collect();
        self.batch_of(payloads, commits);
    }

    fn batch_of(&mut self, payloads: Vec<Vec<u8>>, commits: bool) {
        if commits {
            self.ask(&payloads);
        }
        let mut batch = self.writer.as_mut().expect("an open log").batch();
        for payload in &payloads {
            batch.append(payload).unwrap();
        }
        if commits {
            batch.commit().unwrap();
            self.published += payloads.len();
        } else {
            drop(batch);
        }
        self.answered("a batch");
    }

    pub fn sync(&mut self) {
        self.writer().sync().unwrap();
        self.disk.promise(self.published, "a sync");
    }

    pub fn close(&mut self) {
        self.writer.take().expect("an open log").close().unwrap();
        self.disk.promise(self.published, "a close");
    }

    /// The writer's process is killed, the machine goes on.
    pub fn kill(&mut self) {
        let dir = self.place.path().join(self.runs.to_string());
        std::fs::create_dir(&dir).unwrap();
        self.disk = self.disk.kill(&dir);
        self.dir = dir;
        // Its disk is none any more.
        self.writer = None;
    }

    pub fn step(&mut self) {
        match self.random.below(12) {
            0 => self.batch(0, true),
            1 | 2 => {
                let n = 1 + self.random.below(12) as usize;
                let commits = self.random.below(4) > 0;
                self.batch(n, commits);
            }
            3 => self.sync(),
            4 => std::thread::sleep(Duration::from_millis(15)),
            _ => {
                let payload = self.payload();
                self.append(payload);
            }
        }
    }

    pub fn demand(&self) -> Demand {
        let (records, ends, identities) = (self.records.clone(), self.ends.clone(), self.disk.identities());
        Demand { records, ends, identities, seed: self.seed }
    }

    /// Recovers what the disk may hold after each cut; returns how many states that were.
    pub fn check(mut self, effort: Effort) -> usize {
        let mut cuts: Vec<Cut> = self.disk.take_cuts();
        let demand = self.demand();
        self.disk.end();
        self.writer = None;
        // Before the first run is at an end there may be no log.
        cuts.retain(|cut| !cut.files.is_empty());
        check_all(&cuts, &demand, effort, &mut self.random)
    }
}
