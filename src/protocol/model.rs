//! The control protocol under loom: every interleaving of small cases, with loads that may be stale where the orderings
//! allow it. The futex is modelled by a mutex and a condition variable; a lost wake-up is a deadlock, which loom reports.

use std::sync::atomic::Ordering;

use loom::sync::atomic::{AtomicU64, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::*;

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
    fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        self.fetch_max(value, order)
    }
    fn fence(order: Ordering) {
        fence(order);
    }
}

/// As few slots as the protocol allows, so that the writer comes round soon.
const MODEL_SLOTS: usize = 4;

struct Model {
    end: AtomicU64,
    commit: AtomicU64,
    slots: [[AtomicU64; 3]; MODEL_SLOTS],
    announced: AtomicU64,
    /// A byte of the log for each record, as the payload that must be visible.
    bytes: [AtomicU64; 4],
    /// The kernel's queue of sleepers: the number of wake-ups so far.
    queue: Mutex<u64>,
    woken: Condvar,
}

impl Words for Model {
    type Word = AtomicU64;
    const SLOTS: usize = MODEL_SLOTS;
    fn end(&self) -> &AtomicU64 {
        &self.end
    }
    fn commit(&self) -> &AtomicU64 {
        &self.commit
    }
    fn slot(&self, event: u64) -> [&AtomicU64; 3] {
        let [segment, count, end] = &self.slots[event as usize % MODEL_SLOTS];
        [segment, count, end]
    }
}

impl Model {
    fn new() -> Arc<Model> {
        let word = || AtomicU64::new(0);
        let slot = || [word(), word(), word()];
        Arc::new(Model {
            end: word(),
            commit: word(),
            slots: [slot(), slot(), slot(), slot()],
            announced: word(),
            bytes: [word(), word(), word(), word()],
            queue: Mutex::new(0),
            woken: Condvar::new(),
        })
    }

    /// Publishes records up to `count`, of ten bytes each, as event `event`; wakes as the writer does.
    fn append(&self, event: u64, woken: &mut u64) {
        self.bytes[event as usize % 4].store(event, Relaxed);
        publish(self, event, Pair { count: event, end: 10 * event });
        if someone_sleeps(&self.announced, event, *woken) {
            self.wake();
            *woken = event;
        }
    }

    fn wake(&self) {
        *self.queue.lock().unwrap() += 1;
        self.woken.notify_all();
    }

    /// FUTEX_WAIT: compares and enqueues in one step, as the kernel does under the lock of the queue.
    fn sleep(&self, expected: u64) {
        let mut queue = self.queue.lock().unwrap();
        if self.commit.load(Relaxed) != expected {
            return;
        }
        let before = *queue;
        while *queue == before {
            queue = self.woken.wait(queue).unwrap();
        }
    }

    /// Waits for `end` as a tailer does, without the bound.
    fn follow_to(&self, wanted: u64) {
        loop {
            let event = commit(self);
            let known = end(self);
            if known >= wanted {
                // P1: what lies below the end is visible.
                assert!(self.bytes[(wanted / 10) as usize % 4].load(Relaxed) >= wanted / 10);
                return;
            }
            if announce(self, &self.announced, event) {
                self.sleep(event);
            }
        }
    }
}

fn model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

#[test]
fn no_wake_up_is_lost_with_one_sleeper() {
    model(3, || {
        let model = Model::new();
        let sleeper = {
            let model = model.clone();
            thread::spawn(move || {
                model.follow_to(10);
                model.follow_to(20);
            })
        };
        let mut woken = 0;
        model.append(1, &mut woken);
        model.append(2, &mut woken);
        sleeper.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_with_two_sleepers_on_different_events() {
    model(2, || {
        let model = Model::new();
        let sleepers = [10, 20].map(|wanted| {
            let model = model.clone();
            thread::spawn(move || model.follow_to(wanted))
        });
        let mut woken = 0;
        model.append(1, &mut woken);
        model.append(2, &mut woken);
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

#[test]
fn a_value_that_no_honest_sleeper_can_have_stored_is_ignored() {
    loom::model(|| {
        let announced = AtomicU64::new(u64::MAX);
        assert!(!someone_sleeps(&announced, 7, 0));
        announced.store(8, Relaxed);
        assert!(someone_sleeps(&announced, 7, 0));
        assert!(!someone_sleeps(&announced, 7, 8));
    });
}

#[test]
fn the_pair_is_never_torn() {
    model(3, || {
        let model = Model::new();
        let reader = {
            let model = model.clone();
            thread::spawn(move || {
                if let Some(pair) = try_pair(&*model) {
                    assert_eq!(pair.end, 10 * pair.count);
                }
            })
        };
        let mut woken = 0;
        // Round the slots once and into the one that the reader may be at.
        for event in 1..=5 {
            model.append(event, &mut woken);
        }
        reader.join().unwrap();
        assert_eq!(try_pair(&*model), Some(Pair { count: 5, end: 50 }));
    });
}

#[test]
fn a_writer_that_dies_between_two_stores_leaves_a_pair_and_no_sleeper() {
    // The writer's stores for event 2, cut off after each; then the next writer supersedes the page as `control` does.
    for stores in 0..=5 {
        model(2, move || {
            let model = Model::new();
            let follower = {
                let model = model.clone();
                thread::spawn(move || {
                    // Sleeps until the page is superseded: event 2 by the dead writer, or 2 or 3 by the next.
                    loop {
                        let event = commit(&*model);
                        assert!(try_pair(&*model).is_none_or(|pair| pair.end == 10 * pair.count));
                        if event >= 2 {
                            return;
                        }
                        if announce(&*model, &model.announced, event) {
                            model.sleep(event);
                        }
                    }
                })
            };
            let mut woken = 0;
            model.append(1, &mut woken);
            let [segment, count, end] = model.slot(2);
            fence(Release);
            let all: [&dyn Fn(); 5] = [
                &|| segment.store(0, Relaxed),
                &|| count.store(2, Relaxed),
                &|| end.store(20, Relaxed),
                &|| model.end.store(20, Release),
                &|| model.commit.store(2, Release),
            ];
            all[..stores].iter().for_each(|store| store());
            // Killed here. The next writer comes after it, by the lock.
            let event = commit(&*model);
            let pair = try_pair(&*model).expect("nobody stores meanwhile");
            assert_eq!(pair.end, 10 * pair.count);
            publish(&*model, event + 1, pair);
            model.wake();
            follower.join().unwrap();
        });
    }
}
