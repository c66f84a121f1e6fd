//! Unix seqpacket sockets: one packet a message.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    recv, send, socket_with, sockopt,
};

use super::{End, Expected, Outgoing, Place, Rival, patience};
use crate::Result;

/// One `send` and one `recv` a message.
#[derive(Debug)]
pub struct Packets {
    socket: OwnedFd,
    received: Vec<u8>,
}

/// The rival.
#[derive(Debug)]
pub struct Sockets;

fn new(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)?)
}

fn address(place: &Place) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(place.path("seqpacket.sock"))?)
}

impl Rival for Sockets {
    type Offer = OwnedFd;
    type Host = Packets;
    type Guest = Packets;

    fn offer(place: &Place) -> Result<OwnedFd> {
        let listener = new(SocketFlags::NONBLOCK)?;
        bind(&listener, &address(place)?)?;
        listen(&listener, 1)?;
        Ok(listener)
    }

    fn host(offer: OwnedFd, place: &Place) -> Result<Packets> {
        let socket = patience::until("guest", || match accept_with(&offer, SocketFlags::CLOEXEC) {
            Ok(socket) => Ok(Some(socket)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        Packets::new(socket, place)
    }

    fn guest(place: &Place) -> Result<Packets> {
        let socket = new(SocketFlags::empty())?;
        connect(&socket, &address(place)?)?;
        Packets::new(socket, place)
    }
}

impl Packets {
    fn new(socket: OwnedFd, place: &Place) -> Result<Self> {
        patience::set(&socket, place.wait)?;
        // A packet is to fit the buffer, if the system allows one of that size.
        if place.len > 64 << 10 {
            sockopt::set_socket_send_buffer_size(&socket, 4 * place.len)?;
        }
        Ok(Self { socket, received: vec![0; place.len] })
    }
}

impl End for Packets {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        loop {
            match send(&self.socket, message.bytes(), SendFlags::NOSIGNAL) {
                Ok(sent) if sent == message.bytes().len() => return Ok(()),
                Ok(sent) => return Err(format!("{sent} bytes of a packet were sent").into()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::MSGSIZE) => {
                    let len = message.bytes().len();
                    return Err(format!("a packet of {len} bytes is too long here (see net.core.wmem_max)").into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        loop {
            match recv(&self.socket, &mut self.received[..], RecvFlags::empty()) {
                Ok((received, _)) => return expected.check(&self.received[..received]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
