//! memit: `send`/`on`, the guard, calls and loans, on a channel of bytes. Both sides are inside `run`, as a program's
//! would be, but for a host that calls or streams, and which waits for what it called or sent.

mod burst;
pub mod ring;
mod volley;

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use ::memit::{Channel, IpcMain, IpcRenderer, Reply, SendError, Sender, Trust};

use super::session::{Guest, Host};
use super::{End, Expected, Outgoing, Place, Rival, Wait, Work, patience};
use crate::Result;

const THERE: Channel<[u8]> = Channel::new("there");
const BACK: Channel<[u8]> = Channel::new("back");
const CALL: Channel<[u8], [u8]> = Channel::new("call");
/// Has the guest take part in the probe that ends a segment.
const CLOSE: Channel<()> = Channel::new("close");
const APP: &str = "memit";

/// By `send`, copied and checked where it arrives.
pub const SEND: u8 = 0;
/// By `send_sync`, the answer being the value that the listener sets.
pub const CALLS: u8 = 1;
/// By `loan`, read where it was written: both sides trust each other fully.
pub const LOAN: u8 = 2;
/// As [`SEND`], but streams go by the guard of their channel.
pub const EXCLUSIVE: u8 = 3;

/// The rival, in one of the ways above.
#[derive(Debug)]
pub struct Memit<const WAY: u8>;

/// The host's end.
pub struct MainEnd<const WAY: u8> {
    main: IpcMain,
    renderer: Sender,
    /// What a call brought.
    reply: Option<Reply<[u8]>>,
    /// The answers to streams, which the listener hears.
    answers: Receiver<Vec<u8>>,
    wait: Wait,
}

/// The guest's end.
pub struct RendererEnd<const WAY: u8>(IpcRenderer);

#[allow(unsafe_code)]
fn trust(way: u8) -> Trust {
    if way == LOAN {
        // SAFETY: the only process that connects to this main, in a directory of this pair's own, is the other half of
        // this benchmark, which keeps the protocol.
        unsafe { Trust::full() }
    } else {
        Trust::None
    }
}

/// Sends a message by `WAY`.
#[inline]
fn send<const WAY: u8>(to: &Sender, channel: Channel<[u8]>, message: &Outgoing) -> std::result::Result<(), SendError> {
    if WAY == LOAN {
        let mut loan = to.loan(channel, message.bytes().len())?;
        message.write_to(&mut loan);
        loan.commit()
    } else {
        to.send(channel, message.bytes())
    }
}

impl<const WAY: u8> Rival for Memit<WAY> {
    type Offer = IpcMain;
    type Host = MainEnd<WAY>;
    type Guest = RendererEnd<WAY>;

    fn offer(place: &Place) -> Result<IpcMain> {
        let builder = IpcMain::builder().runtime_dir(&place.directory).wait(place.wait.into()).trust(trust(WAY));
        Ok(builder.bind(APP)?)
    }

    fn host(main: IpcMain, place: &Place) -> Result<MainEnd<WAY>> {
        let renderer = patience::until("renderer", || {
            main.run_once(Duration::from_millis(10))?;
            Ok(main.renderers().pop())
        })?;
        let (heard, answers) = channel();
        if place.work == Work::Stream {
            main.on(BACK, move |_, bytes| heard.send(bytes.to_vec()));
        }
        Ok(MainEnd { main, renderer, reply: None, answers, wait: place.wait })
    }

    fn guest(place: &Place) -> Result<RendererEnd<WAY>> {
        let builder = IpcRenderer::builder().runtime_dir(&place.directory).wait(place.wait.into()).trust(trust(WAY));
        Ok(RendererEnd(builder.connect(APP)?))
    }
}

impl<const WAY: u8> End for MainEnd<WAY> {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        if WAY == CALLS {
            self.reply = Some(self.renderer.send_sync(CALL, message.bytes())?);
            return Ok(());
        }
        Ok(send::<WAY>(&self.renderer, THERE, message)?)
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        if WAY == CALLS {
            return expected.check(&self.reply.take().ok_or("nothing was called")?);
        }
        loop {
            match self.answers.try_recv() {
                Ok(bytes) => return expected.check(&bytes),
                Err(TryRecvError::Disconnected) => return Err("the listener is gone".into()),
                Err(TryRecvError::Empty) if self.wait == Wait::Spin => self.main.poll()?,
                Err(TryRecvError::Empty) => self.main.run_once(patience::ARRIVAL)?,
            };
        }
    }

    fn summon(&mut self) -> Result<()> {
        Ok(self.renderer.send(CLOSE, &())?)
    }

    fn live_as_host(mut self, place: &Place, mut host: Host) -> Result<()> {
        if WAY == EXCLUSIVE && place.work == Work::Stream {
            return burst::host(self, place, host);
        }
        if WAY == CALLS || place.work == Work::Stream {
            return super::live_as_host(&mut self, place, &mut host);
        }
        volley::host::<WAY>(&self.main, self.renderer, place, host)
    }
}

impl<const WAY: u8> End for RendererEnd<WAY> {
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        Ok(send::<WAY>(self.0.sender(), BACK, message)?)
    }

    fn receive(&mut self, _: &Expected) -> Result<()> {
        Err("this guest receives in its listeners".into())
    }

    fn live_as_guest(self, place: &Place, guest: Guest) -> Result<()> {
        volley::guest::<WAY>(&self.0, place, guest)
    }
}
