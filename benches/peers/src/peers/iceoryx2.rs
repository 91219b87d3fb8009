//! iceoryx2, publish and subscribe, without loss: a full subscriber is waited for. A spinning subscriber polls; a sleeping one waits for an event,
//! which is sent when the producer pauses and for each 64 samples.

use iceoryx2::config::Config;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::*;

use crate::peer::{Consumer, Peer, Producer, Result, WAIT};
use crate::run::Run;

/// Samples a subscriber may be behind, for small ones; of large ones as many as this memory holds.
const BUFFER: usize = 4096;
const BUFFER_BYTES: usize = 16 << 20;
/// Samples for which one event is sent.
const EVENT_EACH: usize = 64;

pub struct Iceoryx2;

/// Node, and the two services of a run.
fn services(run: &Run) -> Result<(Node<ipc::Service>, Samples, Events)> {
    set_log_level(LogLevel::Fatal);
    let mut config = Config::default();
    let root = iceoryx2::prelude::Path::new(run.dir.as_os_str().as_encoded_bytes()).map_err(|e| format!("{e:?}"))?;
    config.global.set_root_path(&root);
    config.global.prefix = FileName::new(b"immuta_peers_").map_err(|e| format!("{e:?}"))?;
    let node = NodeBuilder::new().config(&config).create::<ipc::Service>()?;
    let samples = node
        .service_builder(&"samples".try_into()?)
        .publish_subscribe::<[u8]>()
        .enable_safe_overflow(false)
        .history_size(0)
        .subscriber_max_buffer_size((BUFFER_BYTES / run.size).clamp(16, BUFFER))
        .max_publishers(1)
        .max_subscribers(run.consumers)
        .max_nodes(run.consumers + 2)
        .open_or_create()?;
    let events = node
        .service_builder(&"events".try_into()?)
        .event()
        .max_notifiers(1)
        .max_listeners(run.consumers)
        .max_nodes(run.consumers + 2)
        .open_or_create()?;
    Ok((node, samples, events))
}

type Samples = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], ()>;
type Events = iceoryx2::service::port_factory::event::PortFactory<ipc::Service>;

impl Peer for Iceoryx2 {
    type Producer = Sender;
    type Consumer = Receiver;

    fn producer(run: &Run) -> Result<Sender> {
        let (node, samples, events) = services(run)?;
        let publisher = samples
            .publisher_builder()
            .initial_max_slice_len(run.size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        let notifier = if run.spins() { None } else { Some(events.notifier_builder().create()?) };
        Ok(Sender { publisher, notifier, unsaid: 0, _services: (samples, events, node) })
    }

    fn consumer(run: &Run) -> Result<Receiver> {
        let (node, samples, events) = services(run)?;
        let subscriber = samples.subscriber_builder().create()?;
        let listener = if run.spins() { None } else { Some(events.listener_builder().create()?) };
        Ok(Receiver { subscriber, listener, _services: (samples, events, node) })
    }
}

pub struct Sender {
    publisher: Publisher<ipc::Service, [u8], ()>,
    notifier: Option<Notifier<ipc::Service>>,
    /// Samples since the last event.
    unsaid: usize,
    _services: (Samples, Events, Node<ipc::Service>),
}

impl Producer for Sender {
    fn start(&mut self) -> Result<()> {
        // Makes the connections, which a publisher otherwise does at the next sample.
        self.publisher.update_connections()?;
        Ok(())
    }

    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.publisher.loan_slice_uninit(payload.len())?.write_from_slice(payload).send()?;
        self.unsaid += 1;
        if self.unsaid == EVENT_EACH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.unsaid = 0;
        if let Some(notifier) = &self.notifier {
            notifier.notify()?;
        }
        Ok(())
    }
}

pub struct Receiver {
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    listener: Option<Listener<ipc::Service>>,
    _services: (Samples, Events, Node<ipc::Service>),
}

impl Consumer for Receiver {
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        let mut any = false;
        while let Some(sample) = self.subscriber.receive()? {
            each(sample.payload());
            any = true;
        }
        match &self.listener {
            // What was sent before the event is taken by the next call.
            Some(listener) if !any => Ok(listener.timed_wait(|_| {}, WAIT)? > 0),
            _ => Ok(any),
        }
    }
}
