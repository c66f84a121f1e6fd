//! Unix stream sockets.

use std::os::unix::net::{UnixListener, UnixStream};

use super::{End, Expected, Outgoing, Place, Rival, patience};
use crate::Result;

/// One `write` and, mostly, one `read` a message.
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
    received: Vec<u8>,
}

/// The rival.
#[derive(Debug)]
pub struct Sockets;

impl Rival for Sockets {
    type Offer = UnixListener;
    type Host = Stream;
    type Guest = Stream;

    fn offer(place: &Place) -> Result<UnixListener> {
        Ok(UnixListener::bind(place.path("stream.sock"))?)
    }

    fn host(offer: UnixListener, place: &Place) -> Result<Stream> {
        Stream::new(accept(&offer)?, place)
    }

    fn guest(place: &Place) -> Result<Stream> {
        Stream::new(UnixStream::connect(place.path("stream.sock"))?, place)
    }
}

/// Waits for the guest.
pub(super) fn accept(listener: &UnixListener) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    patience::until("guest", || match listener.accept() {
        Ok((socket, _)) => Ok(Some(socket)),
        Err(error) if patience::is_early(&error) => Ok(None),
        Err(error) => Err(error.into()),
    })
}

impl Stream {
    fn new(socket: UnixStream, place: &Place) -> Result<Self> {
        patience::set(&socket, place.wait)?;
        Ok(Self { socket, received: vec![0; place.len] })
    }
}

impl End for Stream {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        Ok(patience::write(&mut self.socket, message.bytes())?)
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        patience::read(&mut self.socket, &mut self.received)?;
        expected.check(&self.received)
    }
}
