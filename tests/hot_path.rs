//! The injury: an append that allocates or makes a system call "now and then" costs microseconds now and then. An allocator that
//! counts, and Syscall User Dispatch, by which the kernel sends a signal instead of serving a thread's system calls.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use immuta::{Durability, ReadMode, WaitStrategy, Writer};
use support::{Log, skip};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread allocates in `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// A log with a writer that has all the space it needs, and is warm.
fn warm() -> (Log, Writer) {
    let log = Log::new();
    let mut writer = log.writer_options().reserve(64 << 20).open(&log.path).unwrap();
    for _ in 0..1000 {
        writer.append(&[1; 64]).unwrap();
    }
    (log, writer)
}

fn append_some(writer: &mut Writer) {
    for n in 0..10_000 {
        writer.append(&[n as u8; 64]).unwrap();
    }
}

fn append_batches(writer: &mut Writer) {
    for n in 0..1000 {
        let mut batch = writer.batch();
        for _ in 0..10 {
            batch.append(&[n as u8; 100]).unwrap();
        }
        batch.commit().unwrap();
    }
}

fn append_claims(writer: &mut Writer) {
    for n in 0..1000 {
        let mut claim = writer.claim(100).unwrap();
        claim.fill(n as u8);
        claim.commit().unwrap();
    }
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn appending_allocates_nothing() {
    let (_log, mut writer) = warm();
    assert_eq!(allocations(|| append_some(&mut writer)), 0, "append");
    assert_eq!(allocations(|| append_batches(&mut writer)), 0, "batches");
    assert_eq!(allocations(|| append_claims(&mut writer)), 0, "claims");
}

#[test]
fn appending_while_the_file_grows_allocates_nothing() {
    let log = Log::new();
    let mut writer = log.writer();
    let record = vec![1; 8000];
    let mut append = |n: u64| {
        for _ in 0..n {
            writer.append(&record).unwrap();
        }
    };
    append(1000);
    assert_eq!(allocations(|| append(4000)), 0);
}

#[test]
fn reading_allocates_nothing() {
    let (log, mut writer) = warm();
    for mode in [ReadMode::Mapped, ReadMode::Pread, ReadMode::Auto] {
        let mut tailer = log.reader_options().read_mode(mode).open(&log.path).unwrap().tail(0).unwrap();
        // Warm: it has its buffer, or its mapping.
        assert!(tailer.try_next().unwrap().is_some());
        append_some(&mut writer);
        let mut seen = 0;
        let count = allocations(|| {
            while tailer.try_next().unwrap().is_some() {
                seen += 1;
            }
        });
        assert!(seen >= 10_000);
        assert_eq!(count, 0, "try_next, {mode:?}: {seen} records");
        // And one at a time, as a follower does; the first may make a mapping.
        writer.append(&[2; 64]).unwrap();
        assert!(tailer.try_next().unwrap().is_some());
        let step = allocations(|| {
            for _ in 0..1000 {
                writer.append(&[2; 64]).unwrap();
                assert!(tailer.try_next().unwrap().is_some());
                assert!(tailer.try_next().unwrap().is_none());
            }
        });
        assert_eq!(step, 0, "append, try_next, {mode:?}");
    }
}

/// Page faults of this thread so far that needed no disk.
fn faults() -> i64 {
    // SAFETY: all zero is an rusage, and the call writes to a live one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage
    };
    usage.ru_minflt
}

#[test]
fn appending_to_space_that_was_reserved_does_not_fault() {
    if !immuta::survey::kernel().populate_write {
        return support::skip("this kernel has no MADV_POPULATE_WRITE");
    }
    // The system may write all of it to the disk meanwhile, after which it does fault: not each time.
    let counts = [0; 5].map(|_| {
        let log = Log::new();
        let mut writer =
            log.writer_options().durability(Durability::Buffered).reserve(64 << 20).open(&log.path).unwrap();
        let record = [1; 1000];
        // So that the code and the stack are there.
        writer.append(&record).unwrap();
        let before = faults();
        for _ in 0..60_000 {
            writer.append(&record).unwrap();
        }
        faults() - before
    });
    // A page in 2 MiB would be 30, and one in 4 KiB 15,000. Looks at the growth may come to code that was not touched yet.
    assert!(counts.iter().any(|count| *count < 10), "{counts:?} faults");
}

#[cfg(target_arch = "x86_64")]
mod dispatch {
    use std::sync::Once;
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

    const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
    const ALLOW: u8 = 0;
    const BLOCK: u8 = 1;
    /// Only one thread at a time counts: the tests that do so share a lock.
    static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());

    /// Counts the system call, and from now on lets them pass: also the one that ends this handler.
    extern "C" fn on_sigsys(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        SELECTOR.store(ALLOW, Relaxed);
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: the kernel gives a handler with SA_SIGINFO both of them.
        let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
        // The union of siginfo_t begins at byte 16; of a SIGSYS it holds an address, the number, the architecture.
        let number = unsafe_number(info);
        NUMBER.store(number as u64, Relaxed);
        let registers = &mut context.uc_mcontext.gregs;
        let argument = |register: i32| registers[register as usize];
        let [a, b, c, d, e, f] =
            [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9].map(argument);
        // SAFETY: the call that the thread was about to make.
        let result = unsafe { libc::syscall(number.into(), a, b, c, d, e, f) };
        let result =
            if result == -1 { -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { result };
        registers[libc::REG_RAX as usize] = result;
    }

    fn unsafe_number(info: &libc::siginfo_t) -> i32 {
        // SAFETY: siginfo_t has 128 bytes; at 24 lies the number of the system call.
        unsafe { std::ptr::from_ref(info).cast::<u8>().add(24).cast::<i32>().read() }
    }

    fn prctl(mode: u64, selector: u64) -> bool {
        // SAFETY: the selector is a static, and the handler is in place.
        unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, mode, 0u64, 0u64, selector) == 0 }
    }

    /// The number of the first system call that this thread makes in `work`; `Err` where the kernel cannot tell.
    pub fn first_system_call(work: impl FnOnce()) -> Result<Option<u64>, String> {
        static HANDLER: Once = Once::new();
        let _one_at_a_time = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        HANDLER.call_once(|| {
            // SAFETY: all zero is a sigaction without flags and mask.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = on_sigsys as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            // SAFETY: the handler does only what is allowed in one.
            assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) }, 0);
        });
        COUNT.store(0, Relaxed);
        if !prctl(1, SELECTOR.as_ptr() as u64) {
            return Err(format!("the kernel has no Syscall User Dispatch: {}", std::io::Error::last_os_error()));
        }
        SELECTOR.store(BLOCK, Relaxed);
        work();
        SELECTOR.store(ALLOW, Relaxed);
        assert!(prctl(0, 0), "to end Syscall User Dispatch");
        Ok((COUNT.load(Relaxed) > 0).then(|| NUMBER.load(Relaxed)))
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod dispatch {
    pub fn first_system_call(_: impl FnOnce()) -> Result<Option<u64>, String> {
        Err("the handler knows the registers of x86-64 only".to_owned())
    }
}

/// Fails if `work` makes a system call.
fn makes_no_system_call(what: &str, work: impl FnOnce()) {
    match dispatch::first_system_call(work) {
        Ok(call) => assert_eq!(call, None, "{what}: the number of its first system call"),
        Err(reason) => skip(&reason),
    }
}

#[test]
fn the_counter_of_system_calls_counts() {
    let mut pid = 0;
    let work = || {
        // SAFETY: always allowed.
        pid = unsafe { libc::syscall(libc::SYS_getpid) };
    };
    match dispatch::first_system_call(work) {
        Ok(call) => {
            assert_eq!(call, Some(libc::SYS_getpid as u64));
            assert_eq!(pid, i64::from(std::process::id()), "the call is made all the same");
        }
        Err(reason) => skip(&reason),
    }
}

#[test]
fn appending_makes_no_system_call() {
    let (_log, mut writer) = warm();
    makes_no_system_call("append", || append_some(&mut writer));
    makes_no_system_call("batches", || append_batches(&mut writer));
    makes_no_system_call("claims", || append_claims(&mut writer));
}

#[test]
fn appending_makes_no_system_call_once_a_sleeper_was_woken() {
    let (log, mut writer) = warm();
    let reader = log.reader_options().wait_strategy(WaitStrategy::Park).open(&log.path).unwrap();
    let mut tailer = reader.tail(immuta::Start::End).unwrap();
    let (thread, ids) = std::sync::mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        thread.send(nix::unistd::gettid()).unwrap();
        support::next(&mut tailer);
        tailer
    });
    support::until_asleep(ids.recv().unwrap());
    support::until("the sleeper is woken", || {
        writer.append(b"wake up").unwrap();
        sleeper.is_finished()
    });
    assert!(sleeper.join().unwrap().wait_counts().sleeps > 0, "it is about a reader that has slept");
    // One may find the last announcement; the next must not.
    writer.append(b"settled").unwrap();
    makes_no_system_call("append", || append_some(&mut writer));
}

#[test]
fn reading_through_the_mapping_makes_no_system_call() {
    let (log, mut writer) = warm();
    let mut tailer = log.reader_options().read_mode(ReadMode::Mapped).open(&log.path).unwrap().tail(0).unwrap();
    assert!(tailer.try_next().unwrap().is_some());
    append_some(&mut writer);
    // Not a look in vain, which may check now and then whether the log is still there.
    makes_no_system_call("try_next", || (0..10_000).for_each(|_| assert!(tailer.try_next().unwrap().is_some())));
}
