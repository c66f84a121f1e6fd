//! What the fuzzers of this crate run. The bodies lie beside what they test; `fuzz/` at the root has the targets, and the
//! tests here replay their corpora.
//!
//! | target | input |
//! |---|---|
//! | `outbox` | anything that a peer writes, to its outbox and its sockets, while this side reads, sends and calls |
//! | `frames` | single frames, compared with what the protocol's document says of each |
//! | `payload_memory` | memory that a peer passes, names and retires, compared with a plain table |
//! | `handshake` | packets of a handshake, to either side |
//! | `reply_slots` | calls, answers and abandonments in any order, compared with a plain model |
//! | `ledger` | loans and give-backs, compared with a plain list |
#![allow(unreachable_pub, missing_docs, reason = "public to the fuzzers alone, and told above")]

use crate::{call, payload, port, rendezvous};

pub fn outbox(bytes: &[u8]) {
    port::fuzzing::outbox(bytes);
}

pub fn frames(bytes: &[u8]) {
    port::fuzzing::frames(bytes);
}

pub fn payload_memory(bytes: &[u8]) {
    port::fuzzing::payload_memory(bytes);
}

pub fn handshake(bytes: &[u8]) {
    rendezvous::fuzzing::handshake(bytes);
}

pub fn reply_slots(bytes: &[u8]) {
    call::fuzzing::reply_slots(bytes);
}

pub fn ledger(bytes: &[u8]) {
    payload::ledger_model::ledger(bytes);
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn corpus_of_outbox() {
        replay("outbox", &[], super::outbox);
    }

    #[test]
    fn corpus_of_frames() {
        replay("frames", &crate::port::fuzzing::frame_seeds(), super::frames);
    }

    #[test]
    fn corpus_of_payload_memory() {
        replay("payload_memory", &[], super::payload_memory);
    }

    #[test]
    fn corpus_of_handshake() {
        replay("handshake", &crate::rendezvous::fuzzing::seeds(), super::handshake);
    }

    #[test]
    fn corpus_of_reply_slots() {
        replay("reply_slots", &[], super::reply_slots);
    }

    #[test]
    fn corpus_of_ledger() {
        replay("ledger", &[], super::ledger);
    }
}
