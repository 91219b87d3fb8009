//! The injury: a program that cannot end, since a thread of it waits for a record that never comes, or for a source that never ends.

mod support;

use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::Duration;

use immuta::{Error, Stopper, Tailer, WaitStrategy};
use support::{Log, bounded, encode, until, until_asleep};

const STRATEGIES: [WaitStrategy; 3] = [WaitStrategy::Spin, WaitStrategy::SpinThenPark, WaitStrategy::Park];

fn tailer(log: &Log, strategy: WaitStrategy) -> Tailer {
    log.reader_options().wait_strategy(strategy).open(&log.path).unwrap().tail(0).unwrap()
}

/// The tailer waits in a thread of its own, is stopped once it does, and gives nothing.
fn ends_when_stopped(mut tailer: Tailer, stop: impl FnOnce(&Stopper)) {
    let stopper = tailer.stopper();
    let (thread, ids) = std::sync::mpsc::channel();
    let waits = std::thread::spawn(move || {
        thread.send(nix::unistd::gettid()).unwrap();
        let nothing = tailer.next().expect("to be stopped is no error").is_none();
        (nothing, tailer.next_timeout(Duration::from_secs(600)).expect("stopped for good").is_none())
    });
    until_asleep(ids.recv().unwrap());
    assert!(!waits.is_finished(), "it waits until it is stopped");
    stop(&stopper);
    until("the wait ends", || waits.is_finished());
    assert_eq!(waits.join().unwrap(), (true, true));
    assert!(stopper.is_stopped());
}

#[test]
fn a_wait_ends_from_another_thread() {
    for strategy in STRATEGIES {
        let log = Log::new();
        let _writer = log.writer();
        ends_when_stopped(tailer(&log, strategy), Stopper::stop);
    }
}

#[test]
fn a_wait_without_a_control_page_ends() {
    for strategy in STRATEGIES {
        let log = Log::new();
        log.writer().close().unwrap();
        ends_when_stopped(tailer(&log, strategy), Stopper::stop);
    }
}

#[test]
fn a_wait_ends_from_a_signal_handler() {
    static STOPPER: OnceLock<Stopper> = OnceLock::new();
    extern "C" fn on_signal(_: i32) {
        if let Some(stopper) = STOPPER.get() {
            stopper.stop();
        }
    }
    let log = Log::new();
    let _writer = log.writer();
    let handler = nix::sys::signal::SigHandler::Handler(on_signal);
    // SAFETY: the handler makes only calls that are allowed in one, which is what is tested.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGUSR1, handler) }.unwrap();
    ends_when_stopped(tailer(&log, WaitStrategy::Park), |stopper| {
        assert!(STOPPER.set(stopper.clone()).is_ok());
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGUSR1).unwrap();
    });
}

#[test]
fn a_tailer_that_was_stopped_before_it_waits_does_not_wait() {
    let log = Log::new();
    let _writer = log.writer();
    let mut tailer = tailer(&log, WaitStrategy::Park);
    tailer.stopper().stop();
    assert!(bounded("a stopped tailer", move || tailer.next().unwrap().is_none()));
}

#[test]
fn stopping_one_tailer_leaves_the_others_alone() {
    let log = Log::new();
    let mut writer = log.writer();
    let reader = log.reader();
    let (one, mut other) = (reader.tail(0).unwrap(), reader.tail(0).unwrap());
    one.stopper().stop();
    writer.append(b"for the other").unwrap();
    assert_eq!(support::next(&mut other).payload(), b"for the other");
}

#[test]
fn a_limit_ends_a_wait_with_timed_out() {
    for strategy in STRATEGIES {
        for has_writer in [true, false] {
            let log = Log::new();
            let writer = log.writer();
            let _writer = has_writer.then_some(writer);
            let mut tailer = tailer(&log, strategy);
            let nothing = bounded("a wait with a limit", move || {
                tailer.next_timeout(Duration::from_millis(30)).map(|record| record.is_some())
            });
            assert!(matches!(nothing, Err(Error::TimedOut { .. })), "{strategy:?}: {nothing:?}");
        }
    }
}

/// Gives bytes for ever, and stops the writer after some.
struct Endless {
    stopper: Stopper,
    given: u64,
    stops_after: u64,
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        assert!(self.given < self.stops_after + (64 << 20), "it goes on reading although it was stopped");
        into.fill(7);
        self.given += into.len() as u64;
        if self.given >= self.stops_after {
            self.stopper.stop();
        }
        Ok(into.len())
    }
}

#[test]
fn a_source_without_an_end_can_be_stopped_and_publishes_nothing() {
    for stops_after in [0, 10_000, 5 << 20] {
        let log = Log::new();
        let mut writer = log.writer_options().window(4 << 20).open(&log.path).unwrap();
        writer.append(b"before").unwrap();
        let stopper = writer.stopper();
        let stopped = writer.append_from(Endless { stopper, given: 0, stops_after });
        assert!(matches!(stopped, Err(Error::Stopped { .. })), "{stopped:?}");
        assert_eq!(writer.stat().unwrap().records, 1);
        assert_eq!(log.parse(), [b"before"]);
        writer.close().unwrap();
        assert_eq!(log.bytes(), encode(&[b"before"]));
    }
}
