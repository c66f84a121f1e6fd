//! The kinds of frames that the engine puts on a ring.

use std::borrow::Cow;
use std::mem;

use memit_ringbuf::Header;

use crate::call::CallHeader;
use crate::payload::loan::Staged;

/// A message: the payload is its bytes.
pub(crate) const MESSAGE: u8 = 1;
/// A synchronous call: a [`CallHeader`](crate::call::CallHeader), then the message's bytes.
pub(crate) const CALL: u8 = 2;
/// A piece of a channel's announcement.
pub(crate) const ANNOUNCE: u8 = 3;
/// The number of a memory that its owner does not use any more.
pub(crate) const RETIRE: u8 = 4;
/// The id of a call whose caller gave up: it will not take the answer.
pub(crate) const ABANDON: u8 = 5;

/// Flag of [`ANNOUNCE`]: more pieces follow.
pub(crate) const MORE: u8 = 1;
/// Flags of [`MESSAGE`] and [`CALL`]: where the payload lies. For all but [`INLINE`](crate::payload::location::INLINE)
/// the frame has a [`Location`](crate::payload::location::Location) in place of it.
pub(crate) const PLACE: u8 = 0b11;

/// A frame that is to be sent: a header and two parts that are laid one behind the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) header: Header,
    pub(crate) prefix: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl Outgoing<'_> {
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.prefix.len() + self.payload.len()
    }
}

/// What one frame is to bring to the peer, however large it is.
#[derive(Debug)]
pub(crate) struct Parcel<'a> {
    /// Without a place, which follows from the content.
    pub(crate) header: Header,
    /// What stands before a call's payload.
    pub(crate) call: Option<[u8; CallHeader::LEN]>,
    pub(crate) content: Content<'a>,
}

/// A payload on its way.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Bytes(Cow<'a, [u8]>),
    /// Written to memory that the peer can read.
    Staged(Staged),
}

impl<'a> From<&'a [u8]> for Content<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}

impl Content<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Staged(staged) => staged.len(),
        }
    }

    /// Gives the memory that the peer would read back, for whoever waits for it: the bytes are copied out. Without memory of
    /// this process's own for them they stay where they are.
    pub(crate) fn unstage(&mut self) {
        if let Self::Staged(staged) = self
            && let Some(bytes) = staged.copied_out()
        {
            *self = Self::Bytes(Cow::Owned(bytes));
        }
    }

    /// Leaves nothing behind.
    pub(crate) fn take(&mut self) -> Self {
        mem::replace(self, Self::Bytes(Cow::Borrowed(&[])))
    }

    pub(crate) fn into_owned(self) -> Content<'static> {
        match self {
            Self::Bytes(bytes) => Content::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Staged(staged) => Content::Staged(staged),
        }
    }
}

impl<'a> Parcel<'a> {
    pub(crate) fn message(channel: u16, content: impl Into<Content<'a>>) -> Self {
        Self::new(Header { channel, kind: MESSAGE, flags: 0 }, content)
    }

    /// A frame of another kind than a call.
    pub(crate) fn new(header: Header, content: impl Into<Content<'a>>) -> Self {
        Self { header, call: None, content: content.into() }
    }

    /// The payload's length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.content.len()
    }

    pub(crate) fn prefix(&self) -> &[u8] {
        self.call.as_ref().map_or(&[], |header| header)
    }

    /// The same, to be sent later. Leaves nothing behind.
    pub(crate) fn defer(&mut self) -> Parcel<'static> {
        let Self { header, call, content } = self;
        Parcel { header: *header, call: *call, content: content.take().into_owned() }
    }
}
