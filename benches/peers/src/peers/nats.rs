//! NATS JetStream: published asynchronously with at most 4096 unacknowledged, as its clients do, to push consumers with flow control and without
//! acknowledgements, over loopback. The protocol is spoken here, since it is a few lines and the client then costs next to nothing.
//! Modes, which are the stream's: "memory" and "file" (flushed by the server each two minutes, its default).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::peer::{Consumer, Peer, Producer, Result};
use crate::run::Run;

const UNACKNOWLEDGED_MAX: usize = 4096;
const BATCH_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 256 << 10;

pub struct Nats;

impl Peer for Nats {
    type Producer = Publisher;
    type Consumer = Subscriber;

    fn producer(run: &Run) -> Result<Publisher> {
        let mut link = Link::new(run)?;
        let storage = if run.mode == "file" { "file" } else { "memory" };
        link.request(
            "$JS.API.STREAM.CREATE.S",
            &format!(r#"{{"name":"S","subjects":["s"],"storage":"{storage}","retention":"limits","num_replicas":1}}"#),
        )?;
        Ok(Publisher { link, kept: Vec::with_capacity(2 * BATCH_BYTES), unacknowledged: 0 })
    }

    fn consumer(run: &Run) -> Result<Subscriber> {
        let mut link = Link::new(run)?;
        write!(link.stream, "SUB d.{} 2\r\n", run.id)?;
        link.request(
            "$JS.API.CONSUMER.CREATE.S",
            &format!(
                r#"{{"stream_name":"S","config":{{"deliver_subject":"d.{}","deliver_policy":"all","ack_policy":"none","replay_policy":"instant","flow_control":true,"idle_heartbeat":1000000000,"max_deliver":1,"mem_storage":true}}}}"#,
                run.id
            ),
        )?;
        Ok(Subscriber { link })
    }
}

struct Link {
    stream: TcpStream,
    inbox: String,
    buffer: Vec<u8>,
    begin: usize,
}

/// What the server sends.
enum Said<'a> {
    /// Where an answer is wanted, headers, payload.
    Message(&'a str, &'a [u8], &'a [u8]),
    Ping,
    Other,
}

impl Link {
    fn new(run: &Run) -> Result<Link> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, run.port))?;
        stream.set_nodelay(true)?;
        stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"name\":\"peers\"}\r\n")?;
        // A process's own, so that nobody hears another's acknowledgements.
        let inbox = format!("i.{}", std::process::id());
        write!(stream, "SUB {inbox} 1\r\n")?;
        Ok(Link { stream, inbox, buffer: Vec::new(), begin: 0 })
    }

    /// A request of JetStream's; its answer must tell of no error.
    fn request(&mut self, subject: &str, body: &str) -> Result<()> {
        write!(self.stream, "PUB {subject} {} {}\r\n{body}\r\n", self.inbox, body.len())?;
        loop {
            match self.next()? {
                Said::Message(_, _, payload) => {
                    let text = String::from_utf8_lossy(payload);
                    return if text.contains(r#""error""#) {
                        Err(format!("the server says: {text}").into())
                    } else {
                        Ok(())
                    };
                }
                Said::Ping => self.stream.write_all(b"PONG\r\n")?,
                Said::Other => {}
            }
        }
    }

    /// Waits for the next thing that the server says.
    fn next(&mut self) -> Result<Said<'_>> {
        while whole(&self.buffer[self.begin..])?.is_none() {
            self.read()?;
        }
        Ok(self.take()?.expect("it is whole"))
    }

    fn read(&mut self) -> Result<()> {
        self.buffer.drain(..self.begin);
        self.begin = 0;
        let len = self.buffer.len();
        self.buffer.resize(len + READ_BYTES, 0);
        let read = self.stream.read(&mut self.buffer[len..])?;
        self.buffer.truncate(len + read);
        if read == 0 { Err("the server has gone".into()) } else { Ok(()) }
    }

    /// What is there already.
    fn take(&mut self) -> Result<Option<Said<'_>>> {
        let rest = &self.buffer[self.begin..];
        let Some((line, headers, end)) = whole(rest)? else { return Ok(None) };
        self.begin += end;
        let text = std::str::from_utf8(&rest[..line])?.trim_end();
        let mut words = text.split(' ');
        Ok(Some(match words.next() {
            // (H)MSG subject sid [reply-to] [header bytes] bytes
            Some(kind @ ("MSG" | "HMSG")) => {
                let numbers = if kind == "MSG" { 1 } else { 2 };
                let words: Vec<&str> = words.collect();
                let reply = if words.len() > 2 + numbers { words[2] } else { "" };
                Said::Message(reply, &rest[line..line + headers], &rest[line + headers..end - 2])
            }
            Some("PING") => Said::Ping,
            Some("-ERR") => return Err(format!("the server says: {text}").into()),
            _ => Said::Other,
        }))
    }
}

/// The length of the first line, of the headers behind it, and the end of what begins here; `None` where it is not all there.
fn whole(bytes: &[u8]) -> Result<Option<(usize, usize, usize)>> {
    let Some(line) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = line + 1;
    let has_payload = bytes.starts_with(b"MSG ") || bytes.starts_with(b"HMSG ");
    if !has_payload {
        return Ok(Some((line, 0, line)));
    }
    let text = std::str::from_utf8(&bytes[..line])?.trim_end();
    let mut numbers = text.rsplit(' ');
    let total: usize = numbers.next().unwrap_or_default().parse()?;
    let headers = if text.starts_with('H') { numbers.next().unwrap_or_default().parse()? } else { 0 };
    let end = line + total + 2;
    Ok((bytes.len() >= end).then_some((line, headers, end)))
}

pub struct Publisher {
    link: Link,
    kept: Vec<u8>,
    unacknowledged: usize,
}

impl Publisher {
    fn write(&mut self, most: usize) -> Result<()> {
        self.link.stream.write_all(&self.kept)?;
        self.kept.clear();
        while self.unacknowledged > most {
            match self.link.next()? {
                Said::Message(_, _, payload) => {
                    if payload.windows(7).any(|word| word == b"\"error\"") {
                        return Err(format!("the server says: {}", String::from_utf8_lossy(payload)).into());
                    }
                    self.unacknowledged -= 1;
                }
                Said::Ping => self.link.stream.write_all(b"PONG\r\n")?,
                Said::Other => {}
            }
        }
        Ok(())
    }
}

impl Producer for Publisher {
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        write!(self.kept, "PUB s {} {}\r\n", self.link.inbox, payload.len())?;
        self.kept.extend_from_slice(payload);
        self.kept.extend_from_slice(b"\r\n");
        self.unacknowledged += 1;
        if self.kept.len() >= BATCH_BYTES || self.unacknowledged > UNACKNOWLEDGED_MAX {
            self.write(UNACKNOWLEDGED_MAX)
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        // A producer that pauses sends, and does not wait for acknowledgements.
        self.write(UNACKNOWLEDGED_MAX)
    }
}

pub struct Subscriber {
    link: Link,
}

impl Consumer for Subscriber {
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        let mut answers: Vec<u8> = Vec::new();
        let mut any = false;
        while let Some(said) = self.link.take()? {
            match said {
                Said::Message(_, [], payload) => {
                    any = true;
                    each(payload);
                }
                Said::Message(reply, headers, _) => {
                    // The producer sends no headers: these are the server's own. Flow control is answered, and a heartbeat may say that an answer is missing.
                    let text = String::from_utf8_lossy(headers);
                    let stalled = text.lines().find_map(|line| line.strip_prefix("Nats-Consumer-Stalled: "));
                    if let Some(subject) = stalled.or((!reply.is_empty()).then_some(reply)) {
                        write!(answers, "PUB {subject} 0\r\n\r\n")?;
                    }
                }
                Said::Ping => answers.extend_from_slice(b"PONG\r\n"),
                Said::Other => {}
            }
        }
        self.link.stream.write_all(&answers)?;
        if !any {
            // A heartbeat comes each second.
            self.link.read()?;
        }
        Ok(true)
    }
}
