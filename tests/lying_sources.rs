//! The injury: a source, which is safe code of anybody's, says that it read more than it was given room for, and the writer panics, or
//! publishes bytes that nobody gave it.

mod support;

use std::io::{ErrorKind, Read};

use immuta::Error;
use support::Log;

/// Says `more` than the room that it is given.
struct Boasts {
    more: usize,
}

impl Read for Boasts {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        into.fill(b'x');
        Ok(into.len().saturating_add(self.more))
    }
}

#[test]
fn a_source_that_says_it_read_more_than_it_could() {
    for mapped in [true, false] {
        for more in [1, 1 << 30, usize::MAX] {
            let log = Log::new();
            let mut writer = log.writer_options().mapped(mapped).open(&log.path).unwrap();
            writer.append(b"before").unwrap();
            match writer.append_from(Boasts { more }) {
                Err(Error::Source { source, .. }) => assert_eq!(source.kind(), ErrorKind::InvalidData, "{source}"),
                other => panic!("mapped={mapped}, {more} more: {other:?}"),
            }
            writer.append(b"after").unwrap();
            writer.close().unwrap();
            assert_eq!(log.parse(), [&b"before"[..], b"after"], "nothing of it is published");
        }
    }
}
