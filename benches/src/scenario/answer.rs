//! A peer that answers each message and each call.

use memit::IpcRenderer;

use crate::Result;
use crate::message::{PlainTick, Sample, Tick};
use crate::peer::Peer;

pub(super) const ROLE: &str = "answer";

pub(super) fn peer(peer: &Peer) -> Result<()> {
    let len = peer.number(0)?;
    let renderer = peer.builder().connect(crate::stage::APP)?;
    peer.pin()?;
    answer::<Tick>(&renderer, len);
    answer::<PlainTick>(&renderer, len);
    peer.obey_common(&renderer);
    Ok(renderer.run()?)
}

/// Has `renderer` answer messages of one kind, with one as long.
pub(super) fn answer<T: Sample>(renderer: &IpcRenderer, len: usize) {
    let mut back = T::new(len);
    renderer.on(T::PING, move |event, tick| {
        back.set(T::number(tick));
        event.reply(T::PONG, &back)
    });
    renderer.on(T::CALL, |event, tick| event.set_return_value(&T::number(tick)));
}
