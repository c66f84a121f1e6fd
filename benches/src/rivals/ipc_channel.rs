//! servo's ipc-channel: its channel of bytes, which serializes nothing.

use std::fs;

use ipc_channel::TryRecvError;
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel};

use super::{End, Expected, Outgoing, Place, Rival, Wait};
use crate::Result;

/// The guest sends the host's ends.
type Ends = (IpcBytesSender, IpcBytesReceiver);

/// A message is sent from where it lies, and received as a vector.
pub struct Channels {
    to: IpcBytesSender,
    from: IpcBytesReceiver,
    wait: Wait,
}

/// The rival.
#[derive(Debug)]
pub struct IpcChannel;

impl Rival for IpcChannel {
    type Offer = IpcOneShotServer<Ends>;
    type Host = Channels;
    type Guest = Channels;

    fn offer(place: &Place) -> Result<Self::Offer> {
        let (server, name) = IpcOneShotServer::new()?;
        fs::write(place.path("name"), name)?;
        Ok(server)
    }

    fn host(offer: Self::Offer, place: &Place) -> Result<Channels> {
        let (_, (to, from)) = offer.accept().map_err(|error| format!("no guest has come: {error}"))?;
        Ok(Channels { to, from, wait: place.wait })
    }

    fn guest(place: &Place) -> Result<Channels> {
        let host: IpcSender<Ends> = IpcSender::connect(fs::read_to_string(place.path("name"))?)?;
        let ((there, from), (to, back)) = (bytes_channel()?, bytes_channel()?);
        host.send((there, back)).map_err(|error| format!("the host's ends cannot be sent: {error}"))?;
        Ok(Channels { to, from, wait: place.wait })
    }
}

impl End for Channels {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        Ok(self.to.send(message.bytes())?)
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        let received = match self.wait {
            Wait::Block => self.from.recv().map_err(|error| format!("nothing can be received: {error}"))?,
            Wait::Spin => loop {
                match self.from.try_recv() {
                    Ok(received) => break received,
                    Err(TryRecvError::Empty) => {}
                    Err(error) => return Err(format!("nothing can be received: {error}").into()),
                }
            },
        };
        expected.check(&received)
    }
}
