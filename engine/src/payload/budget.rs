//! What a receiver lets its peer take up.
//!
//! The peer keeps within what both sides agreed on, by a ledger that this side does not see. This side counts what it
//! has been passed and has not given back, which is never more than the peer's ledger has, and refuses what no ledger
//! would have admitted.

use super::{MOST_MEMORIES, PayloadLimits};

/// The count for one connection, in one direction. No memory is in it.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// Memories that were passed and not used yet.
    passed: usize,
    /// Extents that are mapped.
    extents: usize,
    sealed: usize,
    sealed_bytes: u64,
}

/// The peer took more than was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overdrawn {
    #[error("it passed more than {MOST_MEMORIES} pieces of memory that were not given back")]
    Memories,
    #[error("it passed more extents than {limit} bytes hold, the agreed arena limit")]
    Extents { limit: usize },
    #[error("it passed more payloads than {limit} bytes hold, the agreed arena limit")]
    Sealed { limit: usize },
}

impl Budget {
    /// A descriptor was passed.
    pub(crate) fn pass(&mut self) -> Result<(), Overdrawn> {
        if self.passed + self.extents + self.sealed >= MOST_MEMORIES {
            return Err(Overdrawn::Memories);
        }
        self.passed += 1;
        Ok(())
    }

    /// One that was passed goes unused.
    pub(crate) fn forget(&mut self) {
        self.passed -= 1;
    }

    /// One that was passed is used as an extent.
    pub(crate) fn admit_extent(&mut self, limits: &PayloadLimits) -> Result<(), Overdrawn> {
        // Sealed memory is left out: the peer may have counted this extent before a sealed memory that came first.
        let limit = limits.arena_limit;
        if (self.extents + 1).saturating_mul(limits.extent_size) > limit {
            return Err(Overdrawn::Extents { limit });
        }
        self.passed -= 1;
        self.extents += 1;
        Ok(())
    }

    /// One that was passed is used as sealed memory of `len` bytes.
    pub(crate) fn admit_sealed(&mut self, len: u64, limits: &PayloadLimits) -> Result<(), Overdrawn> {
        // One may always come, however large, and one extent may always be made beside.
        let extents = self.extents.saturating_sub(1) as u64 * limits.extent_size as u64;
        let sealed_bytes = self.sealed_bytes.checked_add(len);
        let charged = sealed_bytes.and_then(|bytes| bytes.checked_add(extents));
        let limit = limits.arena_limit;
        let (Some(sealed_bytes), Some(charged)) = (sealed_bytes, charged) else {
            return Err(Overdrawn::Sealed { limit });
        };
        if self.sealed != 0 && charged > limit as u64 {
            return Err(Overdrawn::Sealed { limit });
        }
        self.passed -= 1;
        self.sealed += 1;
        self.sealed_bytes = sealed_bytes;
        Ok(())
    }

    /// An extent is given back.
    pub(crate) fn end_extent(&mut self) {
        self.extents -= 1;
    }

    /// Sealed memory of `len` bytes is given back.
    pub(crate) fn end_sealed(&mut self, len: u64) {
        self.sealed -= 1;
        self.sealed_bytes -= len;
    }
}
