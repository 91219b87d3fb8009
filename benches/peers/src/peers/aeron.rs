//! Aeron IPC: an exclusive publication, the slowest subscriber sets the pace. Its media driver is a server here, `src/bin/aeron_driver.rs`, which must
//! run, but no message goes through it. Subscribers poll; it cannot sleep until there is something.

use std::ffi::CString;
use std::time::{Duration, Instant};

use rusteron_client::{
    Aeron as Client, AeronContext, AeronExclusivePublication, AeronFragmentClosureAssembler, AeronHeader,
    AeronSubscription, Handlers,
};

use crate::peer::{Consumer, Peer, Producer, Result};
use crate::run::{Idle, Run};

const STREAM: i32 = 1001;
/// Three such are in use by turns. Shorter than the default of 64 MiB, so that they are warm soon: a run is short.
const CHANNEL: &str = "aeron:ipc?term-length=16m";
/// A larger message comes in fragments: the default MTU of IPC less a header.
const FRAGMENT_BYTES: usize = 1408 - 32;
/// Fragments that are taken before the workload looks at anything else.
const AT_ONCE: usize = 256;
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Aeron;

fn client(run: &Run) -> Result<Client> {
    let context = AeronContext::new()?;
    context.set_dir(&CString::new(run.dir.join("driver").as_os_str().as_encoded_bytes())?)?;
    let client = Client::new(&context)?;
    client.start()?;
    Ok(client)
}

impl Peer for Aeron {
    type Producer = Publisher;
    type Consumer = Subscriber;

    fn producer(run: &Run) -> Result<Publisher> {
        let client = client(run)?;
        let channel = CString::new(CHANNEL)?;
        let publication = client.async_add_exclusive_publication(&channel, STREAM)?.poll_blocking(PATIENCE)?;
        Ok(Publisher { publication, idle: run.idle(), _client: client })
    }

    fn consumer(run: &Run) -> Result<Subscriber> {
        let client = client(run)?;
        let channel = CString::new(CHANNEL)?;
        let adding = client.async_add_subscription(&channel, STREAM, Handlers::NONE, Handlers::NONE)?;
        let subscription = adding.poll_blocking(PATIENCE)?;
        let begin = Instant::now();
        while subscription.image_count()? == 0 {
            if begin.elapsed() > PATIENCE {
                return Err("the publication does not come".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let assembler = if run.size > FRAGMENT_BYTES { Some(AeronFragmentClosureAssembler::new()?) } else { None };
        Ok(Subscriber { subscription, assembler, _client: client })
    }
}

pub struct Publisher {
    publication: AeronExclusivePublication,
    idle: Idle,
    _client: Client,
}

impl Producer for Publisher {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        loop {
            match self.publication.offer(payload) {
                Ok(_) => break,
                Err(error) if error.is_retryable() => self.idle.wait()?,
                Err(error) => return Err(format!("{error:?}").into()),
            }
        }
        self.idle.reset();
        Ok(())
    }
}

pub struct Subscriber {
    subscription: AeronSubscription,
    /// Where messages come in fragments.
    assembler: Option<AeronFragmentClosureAssembler>,
    _client: Client,
}

impl Consumer for Subscriber {
    #[inline]
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        let fragments = match &mut self.assembler {
            Some(assembler) => assembler.poll(&self.subscription, each, hand_over, AT_ONCE)?,
            None => self.subscription.poll_fn(|bytes, _| each(bytes), AT_ONCE)?,
        };
        Ok(fragments > 0)
    }
}

fn hand_over<F: FnMut(&[u8])>(each: &mut F, bytes: &[u8], _: AeronHeader) {
    each(bytes);
}
