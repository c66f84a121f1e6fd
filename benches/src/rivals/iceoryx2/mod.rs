//! iceoryx2: publish and subscribe, a service for each direction, set up as in its own benchmarks: no history; for round
//! trips, buffers of one sample that overflow; the next sample is loaned before the answer is waited for. Who sleeps
//! waits on an event service, and is notified of each sample.
//!
//! Its files are in the pair's own directory, and its shared memory has names with the pair's own prefix.
#![allow(unsafe_code)]

pub mod request;

use std::mem::MaybeUninit;

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::sample_mut_uninit::SampleMutUninit;
use iceoryx2::service::port_factory::event;
use iceoryx2::service::port_factory::publish_subscribe;

use super::{End, Expected, Outgoing, Place, Rival, Side, Wait, Work, patience};
use crate::Result;

/// Samples that a stream may have on their way.
const STREAM_BUFFER: usize = 1024;

type Samples = publish_subscribe::PortFactory<ipc::Service, [u8], ()>;
type Events = event::PortFactory<ipc::Service>;

/// The rival; its messages are copied in, or made where they are to be read.
#[derive(Debug)]
pub struct PublishSubscribe<const LOAN: bool>;

/// A node, and what it is told of itself.
fn node(place: &Place) -> Result<Node<ipc::Service>> {
    let mut config = Config::default();
    config.global.set_root_path(&Path::new(place.directory.to_string_lossy().as_bytes())?);
    config.global.prefix = FileName::new(place.prefix.as_bytes())?;
    Ok(NodeBuilder::new().config(&config).signal_handling_mode(SignalHandlingMode::Disabled).create()?)
}

/// The bells of the two directions, for who sleeps.
struct Bells {
    notifier: Notifier<ipc::Service>,
    listener: Listener<ipc::Service>,
}

/// The event services of the messages to the guest, and of those to the host.
fn events(node: &Node<ipc::Service>) -> Result<[Events; 2]> {
    let event = |name| -> Result<Events> {
        let service = node.service_builder(&ServiceName::new(name)?).event();
        Ok(service.max_notifiers(1).max_listeners(1).open_or_create()?)
    };
    Ok([event("there-bell")?, event("back-bell")?])
}

impl Bells {
    fn new([there, back]: &[Events; 2], place: &Place, side: Side) -> Result<Option<Self>> {
        if place.wait == Wait::Spin {
            return Ok(None);
        }
        let (out, input) = if side == Side::Host { (there, back) } else { (back, there) };
        let listener = input.listener_builder().create()?;
        let notifier = out.notifier_builder().create()?;
        Ok(Some(Self { notifier, listener }))
    }
}

/// Rings, if there is a bell.
#[inline]
fn ring(bells: Option<&Bells>) -> Result<()> {
    if let Some(bells) = bells {
        bells.notifier.notify()?;
    }
    Ok(())
}

/// Waits for the other side's bell, if there is one.
#[inline]
fn wait(bells: Option<&Bells>) -> Result<()> {
    if let Some(bells) = bells {
        bells.listener.blocking_wait(|_| ())?;
    }
    Ok(())
}

/// What was made or opened: the node keeps it.
pub struct Services {
    _node: Node<ipc::Service>,
    samples: [Samples; 2],
    events: [Events; 2],
}

impl Services {
    fn new(place: &Place) -> Result<Self> {
        let node = node(place)?;
        let samples = |name| -> Result<Samples> {
            let service = node.service_builder(&ServiceName::new(name)?).publish_subscribe::<[u8]>();
            let service = service.max_publishers(1).max_subscribers(1).history_size(0);
            let service = match place.work {
                Work::Trip => service.subscriber_max_buffer_size(1).enable_safe_overflow(true),
                Work::Stream => service.subscriber_max_buffer_size(STREAM_BUFFER).enable_safe_overflow(false),
            };
            Ok(service.open_or_create()?)
        };
        let samples = [samples("there")?, samples("back")?];
        let events = events(&node)?;
        Ok(Self { _node: node, samples, events })
    }
}

/// A side's ports. They go before the services, in the order in which they are declared.
pub struct Ports<const LOAN: bool> {
    next: Option<SampleMutUninit<ipc::Service, [MaybeUninit<u8>], ()>>,
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    bells: Option<Bells>,
    len: usize,
    services: Services,
}

impl<const LOAN: bool> Ports<LOAN> {
    fn new(services: Services, place: &Place, side: Side) -> Result<Self> {
        let [there, back] = &services.samples;
        let (out, input) = if side == Side::Host { (there, back) } else { (back, there) };
        let bells = Bells::new(&services.events, place, side)?;
        let subscriber = input.subscriber_builder().create()?;
        let publisher = out.publisher_builder().initial_max_slice_len(place.len).create()?;
        Ok(Self { next: None, publisher, subscriber, bells, len: place.len, services })
    }
}

impl<const LOAN: bool> Rival for PublishSubscribe<LOAN> {
    type Offer = Services;
    type Host = Ports<LOAN>;
    type Guest = Ports<LOAN>;

    fn offer(place: &Place) -> Result<Services> {
        Services::new(place)
    }

    fn host(services: Services, place: &Place) -> Result<Ports<LOAN>> {
        let ports = Ports::new(services, place, Side::Host)?;
        let [there, back] = &ports.services.samples;
        let listeners = usize::from(place.wait == Wait::Block);
        patience::until("subscriber", || {
            let (there, back) = (there.dynamic_config(), back.dynamic_config());
            let bell = ports.services.events[0].dynamic_config();
            let found = there.number_of_subscribers() == 1 && back.number_of_publishers() == 1;
            Ok((found && bell.number_of_listeners() == listeners).then_some(()))
        })?;
        Ok(ports)
    }

    fn guest(place: &Place) -> Result<Ports<LOAN>> {
        Ports::new(Services::new(place)?, place, Side::Guest)
    }
}

impl<const LOAN: bool> End for Ports<LOAN> {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        let sample = match self.next.take() {
            Some(sample) => sample,
            None => self.publisher.loan_slice_uninit(self.len)?,
        };
        let sample = if LOAN {
            // SAFETY: the bytes are those of a mapping, which has some value everywhere: zeros, or older samples.
            let mut sample = unsafe { sample.assume_init() };
            message.write_to(sample.payload_mut());
            sample
        } else {
            sample.write_from_slice(message.bytes())
        };
        sample.send()?;
        ring(self.bells.as_ref())?;
        self.next = Some(self.publisher.loan_slice_uninit(self.len)?);
        Ok(())
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                let bytes = sample.payload();
                return if LOAN { expected.check_edges(bytes) } else { expected.check(bytes) };
            }
            wait(self.bells.as_ref())?;
        }
    }
}
