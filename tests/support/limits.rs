//! Processes with little of something: descriptors, file size, rights.

use immuta::{Error, Reader};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{Args, listen, say};

/// What became of a call, in one word and a number of the system's: `ok 0`, `Io 24`, `Damaged 0`.
pub fn verdict<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "ok 0".to_owned(),
        Err(Error::Io { source, .. }) => format!("Io {}", source.raw_os_error().unwrap_or(-1)),
        Err(Error::Locked { pid, .. }) => format!("Locked {}", pid.unwrap_or(0)),
        Err(Error::NotFound { .. }) => "NotFound 0".to_owned(),
        Err(Error::NotALog { .. }) => "NotALog 0".to_owned(),
        Err(Error::Damaged { .. }) => "Damaged 0".to_owned(),
        Err(other) => format!("{other:?} 0"),
    }
}

/// Opens the log as a reader and as a writer, as user `uid`: says `reader VERDICT` and `writer VERDICT`.
pub fn open(args: &Args) {
    args.become_user();
    say(format_args!("reader {}", verdict(args.reader().open(args.text("log")))));
    say(format_args!("writer {}", verdict(args.writer().open(args.text("log")))));
}

/// Uses up its descriptors. Says `reader VERDICT`, `writer VERDICT` without any left, then `later VERDICT` with some;
/// then eight threads read over a pool of ten with one descriptor to be had: `read RECORDS`.
pub fn few_descriptors(args: &Args) {
    let path = args.text("log");
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, 64, most).expect("a low limit");
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    say(format_args!("reader {}", verdict(args.reader().open(path))));
    say(format_args!("writer {}", verdict(args.writer().open(path))));
    // Room for what opening needs; then for one more than the reader has.
    taken.truncate(taken.len() - 10);
    let reader = args.reader().open(path);
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    taken.pop();
    match reader {
        Ok(reader) => {
            say(format_args!("later ok 0"));
            say(format_args!("read {}", read_in_threads(&reader)));
        }
        failed => say(format_args!("later {}", verdict(failed))),
    }
}

/// The records that eight threads read, each all of the log.
pub fn read_in_threads(reader: &Reader) -> u64 {
    std::thread::scope(|scope| {
        let read_all = || {
            let mut tailer = reader.tail(0).expect("a tailer");
            let mut read = 0;
            while tailer.try_next().expect("a read waits for a descriptor").is_some() {
                read += 1;
            }
            read
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(read_all)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread ends well")).sum()
    })
}

/// Has a limit of `limit` bytes for its files, with SIGXFSZ ignored as programs do that handle EFBIG. Appends `size` bytes: `large VERDICT`;
/// then a short record: `short VERDICT`.
pub fn file_size(args: &Args) {
    // SAFETY: nothing else in this process deals with signals.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) }
        .expect("to ignore a signal");
    let limit = args.number("limit", 0u64);
    setrlimit(Resource::RLIMIT_FSIZE, limit, limit).expect("a limit");
    let mut writer = match args.writer().open(args.text("log")) {
        Ok(writer) => writer,
        failed => return say(format_args!("open {}", verdict(failed))),
    };
    say(format_args!("open ok 0"));
    let large = vec![7; args.number("size", 0usize)];
    say(format_args!("large {}", verdict(writer.append(&large))));
    say(format_args!("large {}", verdict(writer.append_from(&large[..]))));
    say(format_args!("large {}", verdict(writer.claim(large.len() as u64))));
    say(format_args!("short {}", verdict(writer.append(b"short"))));
    listen();
    say(format_args!("close {}", verdict(writer.close())));
}
