//! How many connections a main holds, in all and for each user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::message::{Refusal, RefusalCode};
use crate::sys::fork::Epoch;

/// The places of one main.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    max_per_uid: usize,
    epoch: Epoch,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_uid: HashMap<u32, usize>,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    uid: u32,
}

impl Seats {
    pub(super) fn new(max: usize, max_per_uid: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_uid, epoch: Epoch::current(), taken: Mutex::default() })
    }

    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Result<Seat, Refusal> {
        let mut taken = self.lock();
        let of_user = taken.by_uid.get(&uid).copied().unwrap_or(0);
        let refuse = |code, found: usize, max: usize, text| {
            let number = |n: usize| n.try_into().unwrap_or(u64::MAX);
            Err(Refusal::new(code, number(found), number(max), text))
        };
        if taken.in_all >= self.max {
            let text = format!(
                "main has {} connections, at most {} are allowed; raise max_connections",
                taken.in_all, self.max
            );
            return refuse(RefusalCode::TooMany, taken.in_all, self.max, text);
        }
        if of_user >= self.max_per_uid {
            let text = format!(
                "main has {of_user} connections of user {uid}, at most {} are allowed; raise max_connections_per_uid",
                self.max_per_uid
            );
            return refuse(RefusalCode::TooManyOfUser, of_user, self.max_per_uid, text);
        }
        taken.in_all += 1;
        taken.by_uid.insert(uid, of_user + 1);
        Ok(Seat { seats: Arc::clone(self), uid })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // In a forked child the lock may be held by a thread that is not there.
        if !self.seats.epoch.is_current() {
            return;
        }
        let mut taken = self.seats.lock();
        taken.in_all = taken.in_all.saturating_sub(1);
        if let Some(of_user) = taken.by_uid.get_mut(&self.uid) {
            *of_user = of_user.saturating_sub(1);
            if *of_user == 0 {
                taken.by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_for_each_user() {
        let seats = Seats::new(3, 2);
        let first = seats.take(1).unwrap();
        let _second = seats.take(1).unwrap();
        let refusal = seats.take(1).unwrap_err();
        assert_eq!((refusal.code, refusal.found, refusal.expected), (RefusalCode::TooManyOfUser, 2, 2));
        let third = seats.take(2).unwrap();
        let refusal = seats.take(2).unwrap_err();
        assert_eq!((refusal.code, refusal.found, refusal.expected), (RefusalCode::TooMany, 3, 3));
        drop(first);
        let _again = seats.take(1).unwrap();
        drop(third);
        assert!(seats.take(2).is_ok());
        assert!(!seats.lock().by_uid.contains_key(&2), "a user without connections is forgotten");
    }
}
