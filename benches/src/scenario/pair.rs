//! Round trips of a main that waits for each answer before it sends again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memit::{IpcMain, Sender};

use crate::Result;
use crate::message::{Sample, Tick};
use crate::stage;

/// A main and one of its renderers, which answers.
pub(super) struct Pair {
    main: IpcMain,
    pub(super) renderer: Sender,
    answered: Arc<AtomicU64>,
    tick: Tick,
}

impl Pair {
    pub(super) fn new(main: &IpcMain, len: usize) -> Result<Self> {
        let answered = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&answered);
        main.on(Tick::PONG, move |_, tick| heard.store(Tick::number(tick), Ordering::Relaxed));
        Ok(Self { main: main.clone(), renderer: stage::first(main)?, answered, tick: Tick::new(len) })
    }

    pub(super) fn round(&mut self) -> Result<()> {
        let number = self.tick.seq + 1;
        self.tick.set(number);
        self.renderer.send(Tick::PING, &self.tick)?;
        while self.answered.load(Ordering::Relaxed) != number {
            self.main.run_once(Duration::MAX)?;
        }
        Ok(())
    }
}
