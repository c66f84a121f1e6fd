//! The limits that rows are compared with, as the main's process measures them: the peer answers from within a
//! listener.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use memit::Sender;

use crate::course::Limit;
use crate::peer::{CONTROL, Order};
use crate::ratio::per_round;
use crate::shared::Shared;
use crate::{board, futex_pong, ping_pong};

/// Rounds that are not timed: in them the peer gets ready.
const WARM_UP: u32 = 16;

/// A round trip of the bare cache line.
pub fn line(shared: Arc<Shared>, peer: Sender, rounds: u64) -> Limit {
    Box::new(move || {
        let (there, back) = (shared.word(board::LINE_THERE), shared.word(board::LINE_BACK));
        there.store(0, Ordering::Relaxed);
        back.store(0, Ordering::Relaxed);
        peer.send(CONTROL, &Order::Line.with(rounds + u64::from(WARM_UP)))?;
        ping_pong::ask(there, back, 0, WARM_UP.into());
        Ok(per_round(ping_pong::ask(there, back, WARM_UP.into(), rounds), rounds))
    })
}

/// A round trip of the raw futex.
pub fn futex(shared: Arc<Shared>, peer: Sender, rounds: u32) -> Limit {
    Box::new(move || {
        let (there, back) = (shared.futex(board::FUTEX_THERE), shared.futex(board::FUTEX_BACK));
        there.store(0, Ordering::Relaxed);
        back.store(0, Ordering::Relaxed);
        peer.send(CONTROL, &Order::Futex.with(u64::from(rounds) + u64::from(WARM_UP)))?;
        futex_pong::ask(there, back, 0, WARM_UP)?;
        Ok(per_round(futex_pong::ask(there, back, WARM_UP, rounds)?, rounds.into()))
    })
}

/// One `memcpy` of `len` bytes, into memory that is not in the copying core's cache, as a message's is not.
pub fn memcpy(len: usize, copies: u64) -> Limit {
    /// More than caches hold, and twice the longest message.
    const COLD: usize = 128 << 20;
    let from = vec![7_u8; len];
    // Not zeros, for which the system would give out memory only when it is written.
    let mut cold = vec![1_u8; COLD.max(2 * len)];
    let mut at = 0;
    Box::new(move || {
        let began = Instant::now();
        for _ in 0..copies {
            if at + len > cold.len() {
                at = 0;
            }
            black_box(&mut cold[at..at + len]).copy_from_slice(black_box(&from));
            at += len;
        }
        Ok(per_round(began.elapsed(), copies))
    })
}
