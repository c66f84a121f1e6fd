//! The kinds of frames that the engine puts on a ring.

use memit_ringbuf::Header;

/// A message: the payload is its bytes.
pub(crate) const MESSAGE: u8 = 1;
/// A synchronous call: a [`CallHeader`](crate::call::CallHeader), then the message's bytes.
pub(crate) const CALL: u8 = 2;
/// A piece of a channel's announcement.
pub(crate) const ANNOUNCE: u8 = 3;
/// Flag of [`ANNOUNCE`]: more pieces follow.
pub(crate) const MORE: u8 = 1;

/// A frame that is to be sent: a header and two parts that are laid one behind the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) header: Header,
    pub(crate) prefix: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Outgoing<'a> {
    #[inline(always)]
    pub(crate) fn message(channel: u16, payload: &'a [u8]) -> Self {
        Self { header: Header { channel, kind: MESSAGE, flags: 0 }, prefix: &[], payload }
    }

    #[inline(always)]
    pub(crate) fn call(channel: u16, header: &'a [u8], payload: &'a [u8]) -> Self {
        Self { header: Header { channel, kind: CALL, flags: 0 }, prefix: header, payload }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.prefix.len() + self.payload.len()
    }
}
