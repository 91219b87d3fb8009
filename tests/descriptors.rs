//! The injury: a program with a thousand tailers runs out of descriptors, or a tailer that waits for days keeps the last one
//! from the others.

mod support;

use support::Log;
use support::process::Helper;

#[test]
fn a_thousand_tailers_share_two_descriptors() {
    for read in ["auto", "pread", "mapped"] {
        for threads in [1, 8] {
            let log = Log::new();
            let mut writer = log.writer();
            for n in 0..50u64 {
                writer.append(&vec![7; (n * 997 % 9000) as usize]).unwrap();
            }
            let options = format!("descriptors=2 tailers=1000 threads={threads} read={read}");
            let helper = Helper::start("descriptors", &log, &options);
            let read_all = helper.numbers("read");
            assert_eq!(read_all[0], 50 * 1000, "every tailer reads every record");
            assert!(read_all[1] <= 2, "{} descriptors of the log are open at once", read_all[1]);
            let waiting = helper.numbers("waiting");
            assert!(waiting[0] <= 2, "tailers that wait hold {} descriptors", waiting[0]);
            writer.append(b"one more").unwrap();
            assert_eq!(helper.numbers("done"), [1000]);
            helper.succeeds();
        }
    }
}

/// Were a tailer to hold its descriptor while it waits, nobody else could read.
#[test]
fn tailers_that_wait_hold_no_descriptor() {
    let log = Log::new();
    let mut writer = log.writer();
    writer.append(b"the first").unwrap();
    // The helper reads with `get` while its 100 threads wait, over a pool of one.
    for read in ["auto", "pread"] {
        let helper =
            Helper::start("descriptors", &log, &format!("descriptors=1 tailers=100 threads=100 read={read} wait=park"));
        helper.expect("read");
        assert!(helper.numbers("waiting")[0] <= 1);
        writer.append(b"one more").unwrap();
        assert_eq!(helper.numbers("done"), [100]);
        helper.succeeds();
    }
}

#[test]
fn without_a_control_page_too_tailers_that_wait_hold_no_descriptor() {
    let log = Log::new();
    let mut writer = log.writer_options().control_dir("/nonexistent").open(&log.path).unwrap();
    writer.append(b"the first").unwrap();
    let helper = Helper::start("descriptors", &log, "descriptors=1 tailers=100 threads=100");
    helper.expect("read");
    assert!(helper.numbers("waiting")[0] <= 1);
    writer.append(b"one more").unwrap();
    assert_eq!(helper.numbers("done"), [100]);
    helper.succeeds();
}

/// No more can be opened in the whole process: reads wait for those that are lent, instead of failing.
#[test]
fn a_read_waits_while_all_are_lent() {
    let log = Log::new();
    let mut writer = log.writer();
    for n in 0..2000u64 {
        writer.append(&vec![7; (n * 997 % 9000) as usize]).unwrap();
    }
    let helper = Helper::start("few_descriptors", &log, "read=pread");
    for who in ["reader", "writer"] {
        let verdict = helper.expect(who);
        assert_eq!(verdict, ["Io", &libc::EMFILE.to_string()], "a {who} without descriptors");
    }
    assert_eq!(helper.expect("later"), ["ok", "0"]);
    assert_eq!(helper.numbers("read"), [8 * 2000]);
    helper.succeeds();
    writer.append(b"unharmed").unwrap();
}

/// With one descriptor, a verification that held it while it reports would keep the callback waiting for ever.
#[test]
fn a_verification_lends_its_descriptor_to_its_callback() {
    let log = Log::new();
    let mut writer = log.writer();
    for _ in 0..40 {
        writer.append(&vec![7; 1 << 20]).unwrap();
    }
    let reader = log.reader_options().descriptors(1).open(&log.path).unwrap();
    let verified = support::bounded("a verification", move || {
        let mut reports = 0;
        let verified = reader.verify(|_| {
            reports += 1;
            reader.stat().unwrap().records == 40
        });
        (verified.unwrap(), reports)
    });
    assert_eq!((verified.0.records, verified.0.problem, verified.1), (40, None, 2));
}
