//! What a row costs besides time: CPU, system calls and heap allocations, of both processes together.

pub mod allocations;
pub mod cpu;
pub mod trace;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memit::Sender;

use crate::Result;
use crate::board;
use crate::peer::{CONTROL, Order};
use crate::setting::Setting;
use crate::shared::Shared;
use allocations::Allocations;
use cpu::CpuClock;
use trace::Tracer;

/// System calls and allocations a round; `None` where they cannot be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// System calls of all threads of both processes.
    pub calls: Option<f64>,
    /// Allocations of all threads of both processes.
    pub allocations: Option<f64>,
}

/// What a [`Course`](crate::course::Course) has counted.
pub trait Count: Send {
    /// CPU time that has been used.
    fn cpu(&self) -> Result<Duration>;
    /// Begins to count system calls and allocations.
    fn begin(&mut self) -> Result<()>;
    /// The rounds that count begin.
    fn mark(&mut self);
    /// They are over, and were so many. What they took, each.
    fn end(&mut self, rounds: u64) -> Result<Counts>;
}

/// The counters of this process and its peer.
pub struct Counters {
    setting: Setting,
    shared: Arc<Shared>,
    peer: Sender,
    cpu: [CpuClock; 2],
    pids: [u32; 2],
    tracer: Option<Tracer>,
    /// System calls and allocations when the rounds began.
    marked: (u64, Option<u64>),
}

impl Counters {
    /// Counters of this process and of the process `pid` at the other end of `peer`.
    pub fn new(setting: &Setting, shared: Arc<Shared>, peer: Sender, pid: u32) -> Result<Self> {
        let pids = [std::process::id(), pid];
        Ok(Self {
            setting: setting.clone(),
            shared,
            peer,
            cpu: [CpuClock::of(pids[0])?, CpuClock::of(pids[1])?],
            pids,
            tracer: None,
            marked: (0, None),
        })
    }

    fn read(&self) -> (u64, Option<u64>) {
        let theirs = self.shared.word(board::ALLOCATIONS).load(Ordering::Relaxed);
        let allocations = Allocations::here().map(|ours| ours.wrapping_add(theirs));
        (self.shared.word(board::CALLS).load(Ordering::Relaxed), allocations)
    }
}

impl Count for Counters {
    fn cpu(&self) -> Result<Duration> {
        Ok(self.cpu[0].now()? + self.cpu[1].now()?)
    }

    /// Begins in this process and, with the next message to it, in the other one.
    fn begin(&mut self) -> Result<()> {
        self.peer.send(CONTROL, &Order::Count.with(1))?;
        Allocations::begin_here();
        self.tracer = Tracer::start(&self.setting, &self.shared, self.pids)?;
        Ok(())
    }

    fn mark(&mut self) {
        self.marked = self.read();
    }

    fn end(&mut self, rounds: u64) -> Result<Counts> {
        let (calls, allocations) = self.read();
        let a_round = |now: u64, then: u64| {
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            let each = now.wrapping_sub(then) as f64 / rounds as f64;
            each
        };
        let counts = Counts {
            calls: self
                .tracer
                .as_ref()
                .filter(|tracer| tracer.counts(&self.shared))
                .map(|_| a_round(calls, self.marked.0)),
            allocations: allocations.zip(self.marked.1).map(|(now, then)| a_round(now, then)),
        };
        self.tracer = None;
        Allocations::end_here();
        self.peer.send(CONTROL, &Order::Count.with(0))?;
        Ok(counts)
    }
}
