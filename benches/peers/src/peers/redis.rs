//! Redis streams over its unix socket: XADD in pipelines of 64 KiB with at most two unanswered, XREAD BLOCK. The protocol is spoken here, since it
//! is a few lines and the client then costs next to nothing. Modes, which are the server's: "memory", and "aof" (the server's
//! append-only file, flushed each second).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::peer::{Consumer, Peer, Producer, Result, WAIT};
use crate::run::Run;

const PIPELINE_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 256 << 10;
/// What an XREAD asks for: records, and of large ones no more than this many bytes.
const COUNT: usize = 1000;
const COUNT_BYTES: usize = 4 << 20;

pub struct Redis;

impl Peer for Redis {
    type Producer = Adder;
    type Consumer = Reader;

    fn producer(run: &Run) -> Result<Adder> {
        let mut link = Link::new(run)?;
        link.stream.write_all(b"*2\r\n$3\r\nDEL\r\n$1\r\ns\r\n")?;
        link.reply(|_, _| {})?;
        Ok(Adder { link, kept: Vec::with_capacity(2 * PIPELINE_BYTES), commands: 0, unanswered: 0 })
    }

    fn consumer(run: &Run) -> Result<Reader> {
        let count = (COUNT_BYTES / run.size).clamp(1, COUNT);
        Ok(Reader { link: Link::new(run)?, count: count.to_string(), id: "0".to_owned() })
    }
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| bytes += &format!("${}\r\n{word}\r\n", word.len()));
    bytes.into_bytes()
}

/// A connection, and what has come of a reply.
struct Link {
    stream: UnixStream,
    buffer: Vec<u8>,
    begin: usize,
}

impl Link {
    fn new(run: &Run) -> Result<Link> {
        let stream = UnixStream::connect(run.dir.join("redis.socket"))?;
        Ok(Link { stream, buffer: Vec::new(), begin: 0 })
    }

    /// Waits for a reply, and hands over each of its strings with the depth of arrays at which it stands. `false` for nil.
    fn reply(&mut self, mut each: impl FnMut(usize, &[u8])) -> Result<bool> {
        let end = loop {
            if let Some(end) = walk(&self.buffer, self.begin, 0, &mut |_, _| {})? {
                break end;
            }
            self.buffer.drain(..self.begin);
            self.begin = 0;
            let len = self.buffer.len();
            self.buffer.resize(len + READ_BYTES, 0);
            let read = self.stream.read(&mut self.buffer[len..])?;
            self.buffer.truncate(len + read);
            if read == 0 {
                return Err("the server has gone".into());
            }
        };
        let nil = self.buffer[self.begin..].starts_with(b"*-1") || self.buffer[self.begin..].starts_with(b"$-1");
        walk(&self.buffer, self.begin, 0, &mut each)?;
        self.begin = end;
        Ok(!nil)
    }
}

/// The end of the reply that begins at `at`; `None` where it is not all there.
fn walk(bytes: &[u8], at: usize, depth: usize, each: &mut impl FnMut(usize, &[u8])) -> Result<Option<usize>> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(line) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let text = std::str::from_utf8(&rest[..line])?.trim_end();
    let mut next = at + line + 1;
    let (kind, text) = text.split_at_checked(1).ok_or("an empty reply")?;
    match kind {
        "-" => return Err(format!("the server says: {text}").into()),
        "$" => {
            if let Ok(size) = text.parse::<usize>() {
                let Some(string) = bytes.get(next..next + size + 2) else { return Ok(None) };
                each(depth, &string[..size]);
                next += size + 2;
            }
        }
        "*" => {
            for _ in 0..text.parse::<usize>().unwrap_or(0) {
                let Some(end) = walk(bytes, next, depth + 1, each)? else { return Ok(None) };
                next = end;
            }
        }
        _ => {}
    }
    Ok(Some(next))
}

pub struct Adder {
    link: Link,
    kept: Vec<u8>,
    /// In `kept`.
    commands: usize,
    /// Of the pipeline before.
    unanswered: usize,
}

impl Adder {
    fn answers(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.link.reply(|_, _| {})?;
        }
        self.unanswered -= count;
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.link.stream.write_all(&self.kept)?;
        self.kept.clear();
        let before = self.unanswered;
        self.unanswered += std::mem::take(&mut self.commands);
        self.answers(before)
    }
}

impl Producer for Adder {
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.kept.extend_from_slice(b"*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\np\r\n");
        write!(self.kept, "${}\r\n", payload.len())?;
        self.kept.extend_from_slice(payload);
        self.kept.extend_from_slice(b"\r\n");
        self.commands += 1;
        if self.kept.len() >= PIPELINE_BYTES { self.write() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.write()?;
        self.answers(self.unanswered)
    }
}

pub struct Reader {
    link: Link,
    /// Records an XREAD asks for.
    count: String,
    /// Of the last record.
    id: String,
}

impl Consumer for Reader {
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        let wait = WAIT.as_millis().to_string();
        let ask = command(&["XREAD", "COUNT", &self.count, "BLOCK", &wait, "STREAMS", "s", &self.id]);
        self.link.stream.write_all(&ask)?;
        let (id, mut is_name) = (&mut self.id, true);
        // [[key, [[id, [name, payload]], …]]]
        self.link.reply(|depth, string| match depth {
            4 => {
                id.clear();
                id.push_str(&String::from_utf8_lossy(string));
            }
            5 => {
                if !is_name {
                    each(string);
                }
                is_name = !is_name;
            }
            _ => {}
        })
    }
}
