//! iceoryx2: request and response. Each round is a request of its own, and its one response.

use iceoryx2::active_request::ActiveRequest;
use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::Client;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::request_response;

use super::{Bells, Events, events, node, ring, wait};
use crate::Result;
use crate::rivals::{End, Expected, Outgoing, Place, Rival, Side, Wait, patience};

type Calls = request_response::PortFactory<ipc::Service, [u8], (), [u8], ()>;
type Asked = PendingResponse<ipc::Service, [u8], (), [u8], ()>;
type Heard = ActiveRequest<ipc::Service, [u8], (), [u8], ()>;

/// The rival.
#[derive(Debug)]
pub struct RequestResponse;

/// What was made or opened: the node keeps it.
pub struct Services {
    _node: Node<ipc::Service>,
    calls: Calls,
    events: [Events; 2],
}

impl Services {
    fn new(place: &Place) -> Result<Self> {
        let node = node(place)?;
        let service = node.service_builder(&ServiceName::new("calls")?).request_response::<[u8], [u8]>();
        let calls = service.max_servers(1).max_clients(1).max_response_buffer_size(1).open_or_create()?;
        let events = events(&node)?;
        Ok(Self { _node: node, calls, events })
    }
}

/// The host's port, and the request that is not answered yet.
pub struct Asking {
    pending: Option<Asked>,
    client: Client<ipc::Service, [u8], (), [u8], ()>,
    bells: Option<Bells>,
    services: Services,
}

/// The guest's port, and the request that is to be answered.
pub struct Answering {
    active: Option<Heard>,
    server: Server<ipc::Service, [u8], (), [u8], ()>,
    bells: Option<Bells>,
    _services: Services,
}

impl Rival for RequestResponse {
    type Offer = Services;
    type Host = Asking;
    type Guest = Answering;

    fn offer(place: &Place) -> Result<Services> {
        Services::new(place)
    }

    fn host(services: Services, place: &Place) -> Result<Asking> {
        let bells = Bells::new(&services.events, place, Side::Host)?;
        let client = services.calls.client_builder().initial_max_slice_len(place.len).create()?;
        let host = Asking { pending: None, client, bells, services };
        let listeners = usize::from(place.wait == Wait::Block);
        patience::until("server", || {
            let bell = host.services.events[0].dynamic_config();
            let servers = host.services.calls.dynamic_config().number_of_servers();
            Ok((servers == 1 && bell.number_of_listeners() == listeners).then_some(()))
        })?;
        Ok(host)
    }

    fn guest(place: &Place) -> Result<Answering> {
        let services = Services::new(place)?;
        let bells = Bells::new(&services.events, place, Side::Guest)?;
        let server = services.calls.server_builder().initial_max_slice_len(place.len).create()?;
        Ok(Answering { active: None, server, bells, _services: services })
    }
}

impl End for Asking {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        let request = self.client.loan_slice_uninit(message.bytes().len())?;
        self.pending = Some(request.write_from_slice(message.bytes()).send()?);
        ring(self.bells.as_ref())
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        let pending = self.pending.take().ok_or("nothing was asked")?;
        loop {
            if let Some(response) = pending.receive()? {
                return expected.check(response.payload());
            }
            wait(self.bells.as_ref())?;
        }
    }
}

impl End for Answering {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        let active = self.active.take().ok_or("nothing was asked")?;
        let response = active.loan_slice_uninit(message.bytes().len())?;
        response.write_from_slice(message.bytes()).send()?;
        ring(self.bells.as_ref())
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        loop {
            if let Some(request) = self.server.receive()? {
                expected.check(request.payload())?;
                self.active = Some(request);
                return Ok(());
            }
            wait(self.bells.as_ref())?;
        }
    }
}
