//! The other process of a measurement: what it connects, and what it is told to do.

use std::path::PathBuf;
use std::sync::Arc;

use memit::{Builder, Channel, Failure, IpcRenderer, WaitStrategy};

use crate::counting::allocations::Allocations;
use crate::shared::Shared;
use crate::{Result, board, futex_pong, machine, ping_pong};

/// On it the main tells the peer to take part in something, and in how many rounds: an [`Order`] and a number. It is
/// carried out within the listener.
pub const CONTROL: Channel<(u64, u64)> = Channel::new("control");

/// What every peer can be told to do. Scenarios have more, from [`Order::OWN`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Order {
    /// To answer on the bare cache line.
    Line = 1,
    /// To answer on the raw futex.
    Futex,
    /// To count allocations, or (0) no more.
    Count,
}

impl Order {
    /// The first order that is a scenario's own.
    pub const OWN: u64 = 16;

    /// The message.
    #[must_use]
    pub const fn with(self, number: u64) -> (u64, u64) {
        (self as u64, number)
    }
}

/// What a peer process was started with.
#[derive(Debug)]
pub struct Peer {
    /// What both processes share.
    pub shared: Arc<Shared>,
    /// How it waits.
    pub wait: WaitStrategy,
    /// Where the main's socket is.
    pub directory: PathBuf,
    /// What the scenario passed.
    pub numbers: Vec<u64>,
}

impl Peer {
    /// The `nth` number that the scenario passed.
    pub fn number(&self, nth: usize) -> Result<usize> {
        let number = self.numbers.get(nth).ok_or("the scenario passed too few numbers")?;
        Ok(usize::try_from(*number)?)
    }

    /// The settings of a connection.
    pub fn builder(&self) -> Builder<IpcRenderer> {
        IpcRenderer::builder().runtime_dir(&self.directory).wait(self.wait)
    }

    /// Pins the calling thread to the peer's core.
    pub fn pin(&self) -> Result<()> {
        machine::pin(1)?;
        Ok(())
    }

    /// Has `renderer` carry out orders. `own` carries out those that are the scenario's.
    pub fn obey(
        &self,
        renderer: &IpcRenderer,
        mut own: impl FnMut(u64, u64) -> std::result::Result<(), Failure> + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        renderer.on(CONTROL, move |_, order| {
            let (order, number) = (order.0.to_native(), order.1.to_native());
            if order == Order::Line as u64 {
                ping_pong::answer(shared.word(board::LINE_THERE), shared.word(board::LINE_BACK), 0, number);
            } else if order == Order::Futex as u64 {
                let (there, back) = (shared.futex(board::FUTEX_THERE), shared.futex(board::FUTEX_BACK));
                futex_pong::answer(there, back, 0, u32::try_from(number)?)?;
            } else if order == Order::Count as u64 {
                count(&shared, number > 0);
            } else {
                return own(order, number);
            }
            memit::ok()
        });
    }

    /// Has `renderer` carry out the orders that every peer knows.
    pub fn obey_common(&self, renderer: &IpcRenderer) {
        self.obey(renderer, |order, _| Err(Failure::new(format_args!("there is no order {order} in this scenario"))));
    }
}

fn count(shared: &Arc<Shared>, begins: bool) {
    if begins {
        // The mapping stays until this process ends.
        let shared: &'static Shared = Box::leak(Box::new(Arc::clone(shared)));
        Allocations::count_in(shared.word(board::ALLOCATIONS));
    } else {
        Allocations::end_here();
    }
}
