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

/// More than there are sleepers, so that a wake-up is complete.
const ALL: usize = 9;

/// As few slots as the protocol allows, so that the writer comes round soon.
const MODEL_SLOTS: usize = 4;

struct Model {
    end: AtomicU64,
    commit: AtomicU64,
    slots: [[AtomicU64; 3]; MODEL_SLOTS],
    announced: AtomicU64,
    /// A byte of the log for each record, as the payload that must be visible.
    bytes: [AtomicU64; 4],
    /// The kernel's queue of sleepers: who sleeps, in the order of their coming.
    queue: Mutex<Vec<thread::ThreadId>>,
    dequeued: Condvar,
    /// What the writer and its helper share, as in `upkeep`.
    woken_by_helper: AtomicU64,
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
            queue: Mutex::new(Vec::new()),
            dequeued: Condvar::new(),
            woken_by_helper: word(),
        })
    }

    /// Publishes record `event` as event `event`; wakes as the writer does, `most` sleepers at once. `false` where
    /// the helper must go on.
    fn append(&self, event: u64, woken: &mut u64, most: usize) -> bool {
        self.bytes[event as usize % 4].store(event, Relaxed);
        publish(self, event, Pair { count: event, end: 10 * event });
        *woken = (*woken).max(self.woken_by_helper.load(Ordering::Acquire));
        if !someone_sleeps(&self.announced, event, *woken) {
            return true;
        }
        let complete = self.wake(most) < most;
        if complete {
            *woken = event;
        }
        complete
    }

    /// What `Upkeep::wake_all` does, a sleeper at a time.
    fn wake_all(&self) {
        loop {
            let event = commit(self);
            if self.wake(1) < 1 {
                self.woken_by_helper.fetch_max(event, Ordering::Release);
                return;
            }
        }
    }

    /// FUTEX_WAKE: takes at most `most` off the queue; returns how many.
    fn wake(&self, most: usize) -> usize {
        let mut queue = self.queue.lock().unwrap();
        let woken = most.min(queue.len());
        queue.drain(..woken);
        self.dequeued.notify_all();
        woken
    }

    /// FUTEX_WAIT: compares and enqueues in one step, as the kernel does under the lock of the queue.
    fn sleep(&self, expected: u64) {
        let mut queue = self.queue.lock().unwrap();
        if self.commit.load(Relaxed) != expected {
            return;
        }
        let me = thread::current().id();
        queue.push(me);
        while queue.contains(&me) {
            queue = self.dequeued.wait(queue).unwrap();
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
        model.append(1, &mut woken, ALL);
        model.append(2, &mut woken, ALL);
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
        model.append(1, &mut woken, ALL);
        model.append(2, &mut woken, ALL);
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

#[test]
fn no_wake_up_is_lost_where_the_helper_goes_on_with_waking() {
    model(2, || {
        let model = Model::new();
        let sleepers = [10, 20].map(|wanted| {
            let model = model.clone();
            thread::spawn(move || model.follow_to(wanted))
        });
        let mut woken = 0;
        let mut helpers = Vec::new();
        for event in 1..=2 {
            // The writer wakes one; the helper, at some time, the rest, while the writer may go on.
            if !model.append(event, &mut woken, 1) {
                helpers.drain(..).for_each(|helper: thread::JoinHandle<()>| helper.join().unwrap());
                let model = model.clone();
                helpers.push(thread::spawn(move || model.wake_all()));
            }
        }
        for thread in helpers.into_iter().chain(sleepers) {
            thread.join().unwrap();
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
fn what_lies_below_the_end_is_visible_to_one_who_looks_at_nothing_else() {
    loom::model(|| {
        let model = Model::new();
        let follower = {
            let model = model.clone();
            thread::spawn(move || {
                let known = end(&*model);
                for event in 1..=known / 10 {
                    assert_eq!(model.bytes[event as usize].load(Relaxed), event);
                }
            })
        };
        for event in 1..=2 {
            model.bytes[event as usize].store(event, Relaxed);
            publish(&*model, event, Pair { count: event, end: 10 * event });
        }
        follower.join().unwrap();
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
        // Round the slots once and into the one that the reader may be at. Without the doorbell, whose full fence would do
        // the work of P2.
        for event in 1..=5 {
            publish(&*model, event, Pair { count: event, end: 10 * event });
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
            model.append(1, &mut woken, ALL);
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
            model.wake(ALL);
            follower.join().unwrap();
        });
    }
}
