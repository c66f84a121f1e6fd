//! What two sides agree on about payloads that lie outside of the ring.
//!
//! Each says in the handshake what it would give and take. Both use the lesser of each pair, in both directions; only
//! from which length on a payload is to come in sealed memory of its own is the receiver's wish alone.

use super::message::{Refusal, RefusalCode};
use crate::payload::{PAGE, PayloadLimits};

/// The smallest extent.
pub(crate) const LEAST_EXTENT: usize = 64 << 10;
/// The largest.
pub(crate) const MOST_EXTENT: usize = 1 << 30;

/// Whether an extent may have `size` bytes.
pub(crate) const fn is_extent_size(size: usize) -> bool {
    size.is_multiple_of(PAGE) && size >= LEAST_EXTENT && size <= MOST_EXTENT
}

/// What one side says about payloads. All are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadTerms {
    /// Of one extent of an arena, see [`is_extent_size`].
    pub(crate) extent_size: u64,
    /// Of all extents of one arena: at least `extent_size`.
    pub(crate) arena_limit: u64,
    /// Of one payload, however it travels: at least 1.
    pub(crate) message_limit: u64,
    /// From this length on, whoever says this wants payloads that do not fit a frame in sealed memory of their own.
    pub(crate) sealed_from: u64,
}

impl PayloadTerms {
    /// Checks what a peer says.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let refuse = |found, expected, text: String| Err(Refusal::new(RefusalCode::BadMessage, found, expected, text));
        let Self { extent_size, arena_limit, message_limit, sealed_from: _ } = *self;
        if !usize::try_from(extent_size).is_ok_and(is_extent_size) {
            let text = format!(
                "the peer's extents have {extent_size} bytes, expected a multiple of {PAGE} from {LEAST_EXTENT} to \
                 {MOST_EXTENT}; the peer is at fault"
            );
            return refuse(extent_size, LEAST_EXTENT as u64, text);
        }
        if arena_limit < extent_size {
            let text = format!(
                "the peer limits its arena to {arena_limit} bytes, expected at least the {extent_size} of one extent; \
                 the peer is at fault"
            );
            return refuse(arena_limit, extent_size, text);
        }
        if message_limit == 0 {
            return refuse(
                0,
                1,
                "the peer limits messages to 0 bytes, expected 1 or more; the peer is at fault".into(),
            );
        }
        Ok(())
    }

    /// The limits for what `self`'s side sends to the other, and the other receives: both terms must have passed their
    /// checks. Exchange the two for the other direction.
    ///
    /// No extent is larger than the arena: each side's extents fit its own limit, so the lesser of the extents fits
    /// both.
    pub(crate) fn toward(self, receiver: Self) -> PayloadLimits {
        PayloadLimits {
            extent_size: bytes(self.extent_size.min(receiver.extent_size)),
            arena_limit: bytes(self.arena_limit.min(receiver.arena_limit)),
            message_limit: bytes(self.message_limit.min(receiver.message_limit)),
            sealed_from: bytes(receiver.sealed_from),
        }
    }
}

/// No memory is longer than a `usize` says, so a limit beyond it is none.
fn bytes(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const TERMS: PayloadTerms =
        PayloadTerms { extent_size: 4 << 20, arena_limit: 64 << 20, message_limit: 1 << 30, sealed_from: 8 << 20 };

    fn refused(change: impl FnOnce(&mut PayloadTerms)) -> Refusal {
        let mut terms = TERMS;
        change(&mut terms);
        terms.check().unwrap_err()
    }

    #[test]
    fn terms_at_their_bounds_are_accepted() {
        for extent_size in [64 << 10, (64 << 10) + 4096, (1 << 30) - 4096, 1 << 30] {
            for sealed_from in [0, u64::MAX] {
                let terms = PayloadTerms { extent_size, arena_limit: extent_size, message_limit: 1, sealed_from };
                assert_eq!(terms.check(), Ok(()));
            }
        }
        let largest = PayloadTerms { arena_limit: u64::MAX, message_limit: u64::MAX, ..TERMS };
        assert_eq!(largest.check(), Ok(()));
    }

    #[test]
    fn terms_beyond_their_bounds_are_refused_with_both_numbers() {
        for size in [0, 1, 4096, (64 << 10) - 4096, (64 << 10) + 1, (1 << 30) + 4096, 1 << 63, u64::MAX] {
            let refusal = refused(|terms| terms.extent_size = size);
            assert_eq!((refusal.code, refusal.found), (RefusalCode::BadMessage, size));
            assert!(refusal.text.contains(&format!("{size} bytes, expected a multiple of 4096")), "{refusal}");
        }
        let arena = refused(|terms| terms.arena_limit = terms.extent_size - 1);
        assert_eq!((arena.code, arena.found, arena.expected), (RefusalCode::BadMessage, (4 << 20) - 1, 4 << 20));
        let message = refused(|terms| terms.message_limit = 0);
        assert_eq!((message.code, message.found, message.expected), (RefusalCode::BadMessage, 0, 1));
    }

    #[test]
    fn settings_that_pass_their_check_make_terms_that_pass_the_peer_s() {
        for extent_size in [64 << 10, Config::default().extent_size, 1 << 30] {
            let tight = Config { extent_size, arena_limit: extent_size, message_limit: 1, ..Config::default() };
            for config in [Config::default(), tight] {
                assert!(config.check().is_ok());
                assert_eq!(config.payload_terms().check(), Ok(()));
            }
        }
    }

    #[test]
    fn a_refusal_s_text_fits_its_packet() {
        let longest = refused(|terms| terms.extent_size = u64::MAX);
        assert!(longest.text.len() <= Refusal::MAX_TEXT && longest.text.ends_with("at fault"));
    }

    #[test]
    fn each_limit_is_the_lesser_one_and_sealed_from_is_the_receiver_s() {
        let ours =
            PayloadTerms { extent_size: 1 << 20, arena_limit: 32 << 20, message_limit: 7, sealed_from: u64::MAX };
        let sending =
            PayloadLimits { extent_size: 1 << 20, arena_limit: 32 << 20, message_limit: 7, sealed_from: 8 << 20 };
        assert_eq!(ours.toward(TERMS), sending);
        assert_eq!(TERMS.toward(ours), PayloadLimits { sealed_from: usize::MAX, ..sending });
    }

    #[test]
    fn an_agreed_extent_fits_the_agreed_arena_and_both_sides_agree_on_it() {
        let sizes = [64 << 10, 68 << 10, 4 << 20, 1 << 30];
        let sides = || {
            sizes.into_iter().flat_map(|extent_size| {
                let limits = [extent_size, extent_size + 1, 5 << 20, u64::MAX];
                let terms = limits.map(|arena_limit| PayloadTerms { extent_size, arena_limit, ..TERMS });
                terms.into_iter().filter(|terms| terms.check().is_ok())
            })
        };
        assert!(sides().count() > 12);
        for (one, other) in sides().flat_map(|one| sides().map(move |other| (one, other))) {
            let (there, back) = (one.toward(other), other.toward(one));
            assert_eq!(there, back);
            assert!(there.extent_size <= there.arena_limit && is_extent_size(there.extent_size), "{one:?} {other:?}");
        }
    }
}
