//! Who may connect.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::message::{Refusal, RefusalCode};
use super::path::effective_uid;
use crate::config::{Authorize, Config, Credentials};
use crate::sys::pidfd::overflow_uid;

/// The rule of one endpoint.
pub(super) struct Gate {
    overflow: u32,
    authorize: Option<Authorize>,
}

/// A process that may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stranger {
    pub(super) found: u32,
    pub(super) expected: u32,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Unmapped,
    OtherUser,
    Hook,
}

impl Gate {
    pub(super) fn new(config: &Config) -> Self {
        Self { overflow: overflow_uid(), authorize: config.authorize.clone() }
    }

    pub(super) fn admit(&self, peer: &Credentials) -> Result<(), Stranger> {
        let expected = effective_uid();
        let refuse = |why| Err(Stranger { found: peer.uid, expected, why });
        // All users without a mapping look alike, so there is nothing that a rule could be about.
        if peer.uid == self.overflow || peer.uid == u32::MAX {
            return refuse(Why::Unmapped);
        }
        match &self.authorize {
            None if peer.uid == expected => Ok(()),
            None => refuse(Why::OtherUser),
            Some(authorize) => match catch_unwind(AssertUnwindSafe(|| authorize(peer))) {
                Ok(true) => Ok(()),
                Ok(false) => refuse(Why::Hook),
                Err(_) => {
                    tracing::error!(?peer, "the authorize hook panicked; the peer is refused");
                    refuse(Why::Hook)
                }
            },
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("has_hook", &self.authorize.is_some()).finish_non_exhaustive()
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, expected, why } = self;
        match why {
            Why::Unmapped => write!(
                f,
                "user {found} stands for users without a mapping in this user namespace and is never admitted; run both processes in one user namespace"
            ),
            Why::OtherUser => write!(
                f,
                "user {found} may not connect, expected user {expected}; run both processes as one user, or set authorize"
            ),
            Why::Hook => write!(f, "the authorize hook does not admit user {found}"),
        }
    }
}

impl From<Stranger> for Refusal {
    fn from(stranger: Stranger) -> Self {
        Self::new(RefusalCode::Unauthorized, stranger.found.into(), stranger.expected.into(), stranger)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn peer(uid: u32) -> Credentials {
        Credentials { pid: 1, uid, gid: 0 }
    }

    fn gate(authorize: Option<Authorize>) -> Gate {
        Gate { overflow: 65_534, authorize }
    }

    #[test]
    fn by_default_only_our_own_user_is_admitted() {
        let us = effective_uid();
        assert_eq!(gate(None).admit(&peer(us)), Ok(()));
        let stranger = gate(None).admit(&peer(us + 1)).unwrap_err();
        assert_eq!((stranger.found, stranger.expected), (us + 1, us));
        assert!(stranger.to_string().contains("expected user"), "{stranger}");
    }

    #[test]
    fn the_hook_may_widen_and_narrow_the_rule() {
        let us = effective_uid();
        let others: Authorize = Arc::new(move |peer| peer.uid != us);
        assert_eq!(gate(Some(Arc::clone(&others))).admit(&peer(us + 1)), Ok(()));
        assert_eq!(gate(Some(others)).admit(&peer(us)).unwrap_err().why, Why::Hook);
    }

    #[test]
    fn users_without_a_mapping_are_refused_whatever_the_hook_says() {
        for uid in [65_534, u32::MAX] {
            let stranger = gate(Some(Arc::new(|_| true))).admit(&peer(uid)).unwrap_err();
            assert_eq!(stranger.why, Why::Unmapped);
        }
    }

    #[test]
    fn a_hook_that_panics_refuses() {
        let gate = gate(Some(Arc::new(|_| panic!("of the hook"))));
        assert_eq!(gate.admit(&peer(effective_uid())).unwrap_err().why, Why::Hook);
    }
}
