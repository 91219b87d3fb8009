//! A reader that does all that its rights let it do to others: as user `uid`, on a log that it may only read.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

use crate::{Args, listen, say};

/// Does `act=…` until the end of input; says `acting` once it is at it, or `refused ERRNO`.
pub fn hostile(args: &Args) {
    args.become_user();
    let log = File::open(args.text("log")).expect("it may read the log");
    match args.text("act") {
        "lock" => lock(&log, libc::LOCK_EX | libc::LOCK_NB),
        "wait_for_lock" => {
            // It gets the lock when the writer closes, and keeps it.
            std::thread::spawn(move || {
                lock(&log, libc::LOCK_EX);
                std::mem::forget(log);
            });
            say(format_args!("acting"));
        }
        "lock_byte" => lock_byte(&log),
        "requeue" => storm(args, &log, true),
        "wake" => storm(args, &log, false),
        "ring" => ring(args, &log),
        "cut_bell" => {
            let bell = OpenOptions::new().write(true).open(page(args, &log, ".bell"));
            match bell.and_then(|bell| bell.set_len(0)) {
                Ok(()) => say(format_args!("acting")),
                Err(error) => say(format_args!("refused {}", error.raw_os_error().unwrap_or(0))),
            }
        }
        "descriptors" => {
            let most = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("the limit").1;
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most)
                .expect("all of them");
            let held: Vec<_> = (0..1000).map(|_| File::open(args.text("log")).expect("one more")).collect();
            say(format_args!("acting"));
            while listen().is_some() {}
            drop(held);
        }
        other => panic!("no such act: {other}"),
    }
    while listen().is_some() {}
}

/// The name of the control page, with something behind it.
fn page(args: &Args, log: &File, behind: &str) -> PathBuf {
    let metadata = log.metadata().expect("the log's identity");
    PathBuf::from(args.text("control")).join(format!("immuta-{}-{}{behind}", metadata.dev(), metadata.ino()))
}

fn lock(log: &File, how: i32) {
    // SAFETY: the descriptor is open.
    let result = unsafe { libc::flock(log.as_raw_fd(), how) };
    match result {
        0 => say(format_args!("acting")),
        _ => say(format_args!("refused {}", std::io::Error::last_os_error().raw_os_error().unwrap_or(0))),
    }
}

/// A read lock on the byte that a writer locks (FORMAT.md): all that a descriptor opened read-only can have.
fn lock_byte(log: &File) {
    let (kind, whence) = (libc::F_RDLCK as i16, libc::SEEK_SET as i16);
    let lock = libc::flock { l_type: kind, l_whence: whence, l_start: i64::MAX - 1, l_len: 1, l_pid: 0 };
    match fcntl(log, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => say(format_args!("acting")),
        Err(error) => say(format_args!("refused {}", error as i32)),
    }
}

/// Moves the page's sleepers to a futex of its own, where nobody wakes them; or wakes them all the time.
fn storm(args: &Args, log: &File, requeue: bool) {
    let page = File::open(page(args, log, "")).expect("it may read the page");
    let len = std::num::NonZeroUsize::new(4096).expect("not zero");
    // SAFETY: a new mapping, of a file whose size does not change, that stays.
    let map = unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &page, 0) }.expect("a mapping");
    let own: &'static mut u32 = Box::leak(Box::new(0));
    let (own, over) = (std::ptr::from_mut(own) as usize, AtomicBool::new(false));
    // FORMAT.md: the commit word of `published` lies at 384 + 8, that of `durable` at 1536 + 8.
    let words = [384 + 8, 1536 + 8].map(|offset| map.as_ptr() as usize + offset);
    say(format_args!("acting"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for word in words {
                    // SAFETY: the word lies in the mapping, and only the kernel and atomic loads touch it.
                    let value = unsafe { (*(word as *const std::sync::atomic::AtomicU32)).load(Ordering::Relaxed) };
                    // SAFETY: both words live as long as this process.
                    unsafe {
                        if requeue {
                            let (all, none) = (i32::MAX as usize, 0usize);
                            libc::syscall(libc::SYS_futex, word, libc::FUTEX_CMP_REQUEUE, none, all, own, value);
                        } else {
                            libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX);
                        }
                    }
                }
                // All that a core can do would be the machine's matter, not the log's.
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        });
        while listen().is_some() {}
        over.store(true, Ordering::Relaxed);
    });
}

/// Fills the doorbell with the highest number, again and again.
fn ring(args: &Args, log: &File) {
    use std::os::unix::fs::FileExt;
    let bell = match OpenOptions::new().write(true).open(page(args, log, ".bell")) {
        Ok(bell) => bell,
        Err(error) => return say(format_args!("refused {}", error.raw_os_error().unwrap_or(0))),
    };
    say(format_args!("acting"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // FORMAT.md: `announced` lies at 128.
                bell.write_all_at(&u64::MAX.to_le_bytes(), 128).expect("it may write it");
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        });
        while listen().is_some() {}
        over.store(true, Ordering::Relaxed);
    });
}
