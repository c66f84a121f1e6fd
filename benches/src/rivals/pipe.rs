//! Two pipes, of the capacity that the system gives them.

use std::fs::{File, OpenOptions};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{End, Expected, Outgoing, Place, Rival, Side, patience};
use crate::Result;

/// One `write` and, mostly, one `read` a message.
#[derive(Debug)]
pub struct Ends {
    to: File,
    from: File,
    received: Vec<u8>,
}

/// The rival.
#[derive(Debug)]
pub struct Pipes;

const NAMES: [&str; 2] = ["there.pipe", "back.pipe"];

impl Rival for Pipes {
    type Offer = ();
    type Host = Ends;
    type Guest = Ends;

    fn offer(place: &Place) -> Result<()> {
        for name in NAMES {
            mknodat(CWD, place.path(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        Ok(())
    }

    fn host((): (), place: &Place) -> Result<Ends> {
        Ends::open(place, Side::Host)
    }

    fn guest(place: &Place) -> Result<Ends> {
        Ends::open(place, Side::Guest)
    }
}

impl Ends {
    fn open(place: &Place, side: Side) -> Result<Self> {
        // Opened for both, a named pipe does not wait for the other side.
        let open = |name| OpenOptions::new().read(true).write(true).open(place.path(name));
        let [there, back] = [open(NAMES[0])?, open(NAMES[1])?];
        let (to, from) = if side == Side::Host { (there, back) } else { (back, there) };
        patience::set(&to, place.wait)?;
        patience::set(&from, place.wait)?;
        Ok(Self { to, from, received: vec![0; place.len] })
    }
}

impl End for Ends {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        Ok(patience::write(&mut self.to, message.bytes())?)
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        patience::read(&mut self.from, &mut self.received)?;
        expected.check(&self.received)
    }
}
