//! Ringing the peer's bells, and sleeping until it rings ours.

use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use memit_ringbuf::reached;

use super::Link;
use crate::doorbell::protocol::{Kinds, Pass, Waker, arm, arm_at, find_armed, unfence, wanted_by_armed};
use crate::doorbell::sleep::{ring_anyway, sleep_once};
use crate::doorbell::strategy::{CLOCK_STRIDE, Spin};
use crate::sys::barrier::{self, Barrier, Heavy};

/// How long a side sleeps at most once its heavy barrier was refused: a wake-up may be missed, then.
const SLICE: Duration = Duration::from_millis(1);

impl Link {
    /// Tells the peer's dispatcher that a frame was published, if it sleeps.
    #[inline(always)]
    pub(super) fn ring_data(&self) {
        let armed = self.find_armed(|| self.peer.load_data_armed());
        if self.data_waker.due(armed) {
            self.ring(&self.data_waker, armed, self.own.data_bell());
        }
    }

    /// What a thread of the peer has armed with that sleeps alone, as found behind a publication.
    #[inline(always)]
    fn find_armed(&self, load: impl Fn() -> u64) -> u64 {
        barrier::light(self.outgoing);
        find_armed(load, || barrier::light(Barrier::Fence))
    }

    /// What the peer's producers have armed with, if they sleep for space and were not woken since.
    #[inline(always)]
    pub(crate) fn space_armed(&self) -> Option<u64> {
        let armed = self.peer.load_space_armed();
        self.space_waker.due(armed).then_some(armed)
    }

    /// Whether `head` is far enough for the peer's producers, who have armed.
    pub(crate) fn satisfies_space(&self, head: u64) -> bool {
        reached(head, wanted_by_armed(|| self.peer.load_space_wanted()))
    }

    /// Wakes the peer's producers, who have armed with `armed` and find `head` moved.
    pub(crate) fn ring_space(&self, armed: u64) {
        self.ring(&self.space_waker, armed, self.own.space_bell());
    }

    /// Tells a thread of the peer that the reply in `slot` is there, if it sleeps.
    #[inline(always)]
    pub(super) fn ring_reply(&self, slot: u32) {
        let armed = self.find_armed(|| self.peer.load_reply_armed(slot));
        if let Some(waker) = self.reply_wakers.get(slot as usize)
            && waker.due(armed)
        {
            self.ring(waker, armed, self.own.reply_bell(slot));
        }
    }

    #[cold]
    pub(super) fn ring(&self, waker: &Waker, armed: u64, bell: &AtomicU32) {
        crash_point!("ring-before");
        waker.ring(armed, bell, || self.sockets.ring());
        crash_point!("ring-after");
    }

    /// Wakes the peer's threads that wait for space and for the reply in `slot`, whether or not they are armed:
    /// something else than what they wait for is to be looked at.
    pub(super) fn ring_crossing(&self, slot: u32) {
        ring_anyway(self.own.space_bell());
        if slot < self.own.geometry().slot_count() {
            ring_anyway(self.own.reply_bell(slot));
        }
    }

    /// How far the peer has consumed our ring reaches `wanted`, as far as it has told.
    #[inline]
    pub(crate) fn has_space_at(&self, wanted: u64) -> bool {
        reached(self.peer.load_head(), wanted)
    }

    /// Says in our outbox that somebody sleeps until the peer has consumed up to `wanted`.
    ///
    /// Several threads may; the last one's position stands. The others are woken at the latest when the peer has
    /// consumed everything, which satisfies every position.
    pub(crate) fn arm_space(&self, wanted: u64, kinds: Kinds) {
        arm_at(self.own.space_armed(), self.own.space_wanted(), wanted, kinds);
    }

    /// Arms `word` of our outbox for the only thread that sleeps on it, which does so often or not. The barrier to pass
    /// before its last look.
    pub(super) fn arm_alone(&self, word: &AtomicU64, kinds: Kinds, often: bool) -> Barrier {
        // Once a barrier was refused, it is not known any more behind which words one has been passed.
        let ask = often && self.incoming == Barrier::Asymmetric && !barrier::was_refused();
        match arm(word, kinds, ask) {
            Pass::Heavy => self.incoming,
            Pass::Fence => Barrier::Fence,
        }
    }

    /// Says in our outbox that the dispatching thread sleeps for frames. The barrier to pass before its last look.
    pub(crate) fn arm_data(&self, kinds: Kinds, often: bool) -> Barrier {
        self.arm_alone(self.own.data_armed(), kinds, often)
    }

    /// Asks the peer for no more fences behind what the dispatching thread waits for: it seldom sleeps.
    pub(crate) fn unfence_data(&self) {
        unfence(self.own.data_armed());
    }

    /// The barrier that was agreed on, which a sleeper passes before its last look unless wakers were asked for fences.
    pub(crate) fn sleeping_barrier(&self) -> Barrier {
        self.incoming
    }

    /// Waits until `ready`, the end of the connection, or the deadline; may return sooner. Spins first, by `spin`.
    /// `arm` says in our outbox that somebody sleeps, and which barrier has to be passed then; `bell` is the peer's
    /// word that it will ring.
    // Not inlined, so that `ci/instructions.sh` can tell a call from its wait.
    #[inline(never)]
    pub(super) fn wait(
        &self,
        spin: &Spin,
        bell: &AtomicU32,
        deadline: Option<Instant>,
        arm: impl FnOnce() -> Barrier,
        ready: impl Fn() -> bool,
    ) {
        if self.spin(spin, deadline, &ready) {
            return;
        }
        let began = Instant::now();
        let barrier = |behind| bounded(deadline, barrier::heavy(behind));
        sleep_once(bell, &self.control, arm, barrier, || ready() || !self.is_connected());
        spin.slept(began.elapsed());
    }

    /// Spins, by `spin`, until `ready`, the end of the connection, or the deadline. `false`: it is time to sleep.
    pub(super) fn spin(&self, spin: &Spin, deadline: Option<Instant>, ready: &impl Fn() -> bool) -> bool {
        let passed = |iteration: u32| {
            iteration.is_multiple_of(CLOCK_STRIDE) && deadline.is_some_and(|deadline| Instant::now() >= deadline)
        };
        spin.until(|iteration| (ready() || !self.is_connected() || passed(iteration)).then_some(())).is_some()
    }
}

/// The deadline of one sleep behind this barrier: a slice, where a wake-up may be missed.
pub(crate) fn bounded(deadline: Option<Instant>, heavy: Heavy) -> Option<Instant> {
    match heavy {
        Heavy::Done => deadline,
        Heavy::Failed => {
            let slice = Instant::now() + SLICE;
            Some(deadline.map_or(slice, |deadline| deadline.min(slice)))
        }
    }
}
