//! Streams by the guard: the host's thread has the way to its peer for itself while it sends a segment's messages, and
//! lets it go before it waits for the answer.

use ::memit::{ChannelExclusive, ChannelSender};

use super::{MainEnd, THERE};
use crate::Result;
use crate::rivals::session::Host;
use crate::rivals::{End, Expected, Outgoing, Place, live_as_host};

struct Burst<'c, const WAY: u8> {
    end: MainEnd<WAY>,
    channel: &'c ChannelSender<[u8]>,
    /// From a segment's first message until its last one is sent.
    guard: Option<ChannelExclusive<'c, [u8]>>,
}

/// The host's life.
pub(super) fn host<const WAY: u8>(end: MainEnd<WAY>, place: &Place, mut host: Host) -> Result<()> {
    let channel = end.renderer.to(THERE)?;
    live_as_host(&mut Burst { end, channel: &channel, guard: None }, place, &mut host)
}

impl<const WAY: u8> End for Burst<'_, WAY> {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        let guard = match &mut self.guard {
            Some(guard) => guard,
            None => self.guard.insert(self.channel.exclusive()?),
        };
        Ok(guard.send(message.bytes())?)
    }

    fn receive(&mut self, expected: &Expected) -> Result<()> {
        self.guard = None;
        self.end.receive(expected)
    }

    fn summon(&mut self) -> Result<()> {
        self.end.summon()
    }
}
