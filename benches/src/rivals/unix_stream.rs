//! Unix stream sockets, and how the two sides of one meet, whatever they carry over it.

use std::marker::PhantomData;
use std::os::unix::net::{UnixListener, UnixStream};

use super::{End, Expected, Outgoing, Place, Rival, patience};
use crate::Result;

/// One `write` and, mostly, one `read` a message.
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
    received: Vec<u8>,
}

/// The rival whose ends make such use of the socket.
#[derive(Debug)]
pub struct Sockets<E>(PhantomData<E>);

/// An end that exchanges messages over a stream socket.
pub trait OverSocket: End {
    /// The socket waits as the place says.
    fn over(socket: UnixStream, place: &Place) -> Result<Self>;
}

/// Its name in the pair's directory.
const NAME: &str = "stream.sock";

impl<E: OverSocket> Rival for Sockets<E> {
    type Offer = UnixListener;
    type Host = E;
    type Guest = E;

    fn offer(place: &Place) -> Result<UnixListener> {
        Ok(UnixListener::bind(place.path(NAME))?)
    }

    fn host(offer: UnixListener, place: &Place) -> Result<E> {
        end(accept(&offer)?, place)
    }

    fn guest(place: &Place) -> Result<E> {
        end(UnixStream::connect(place.path(NAME))?, place)
    }
}

fn end<E: OverSocket>(socket: UnixStream, place: &Place) -> Result<E> {
    patience::set(&socket, place.wait)?;
    E::over(socket, place)
}

/// Waits for the guest.
fn accept(listener: &UnixListener) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    patience::until("guest", || match listener.accept() {
        Ok((socket, _)) => Ok(Some(socket)),
        Err(error) if patience::is_early(&error) => Ok(None),
        Err(error) => Err(error.into()),
    })
}

impl OverSocket for Stream {
    fn over(socket: UnixStream, place: &Place) -> Result<Self> {
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
