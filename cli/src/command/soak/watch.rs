//! Tells a hang from slowness: a thread that has not made one step while both sides ran for ten seconds hangs.
//!
//! It counts looks, which come once a second, and not time: on a machine so busy that the supervisor itself does not
//! run, nobody looks.

use std::collections::HashMap;

/// Looks without a step after which a thread hangs.
pub(crate) const PATIENCE: u32 = 10;

/// A thread at a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) thread: String,
    pub(crate) steps: u64,
    /// Whether it could have made a step since the last look: its process and the one at the other end ran all the time.
    pub(crate) could: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    seen: HashMap<String, (u64, u32)>,
}

impl Watch {
    /// Takes a look at all threads; returns those that hang.
    pub(crate) fn look(&mut self, looks: Vec<Look>) -> Vec<String> {
        let before = std::mem::take(&mut self.seen);
        let mut hanging = Vec::new();
        for Look { thread, steps, could } in looks {
            let idle = match before.get(&thread) {
                Some(&(seen, idle)) if seen == steps => idle + u32::from(could),
                _ => 0,
            };
            if idle >= PATIENCE {
                hanging.push(thread.clone());
            }
            self.seen.insert(thread, (steps, idle));
        }
        hanging
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the look at which the thread is said to hang.
    fn hangs(of: impl Fn(u32) -> (u64, bool)) -> Option<u32> {
        let mut watch = Watch::default();
        (0..100).find(|&number| {
            let (steps, could) = of(number);
            !watch.look(vec![Look { thread: "a".into(), steps, could }]).is_empty()
        })
    }

    #[test]
    fn a_thread_without_a_step_for_ten_looks_hangs() {
        assert_eq!(hangs(|_| (5, true)), Some(PATIENCE));
        assert_eq!(hangs(|number| (u64::from(number.min(20)), true)), Some(20 + PATIENCE));
    }

    #[test]
    fn a_slow_thread_does_not_hang() {
        assert_eq!(hangs(|number| (u64::from(number / 9), true)), None);
    }

    #[test]
    fn looks_at_which_it_could_not_do_not_count() {
        assert_eq!(hangs(|_| (5, false)), None);
        assert_eq!(hangs(|number| (5, number % 2 == 0)), Some(2 * PATIENCE));
    }

    #[test]
    fn a_thread_that_was_away_begins_anew() {
        let mut watch = Watch::default();
        let look = || vec![Look { thread: "a".into(), steps: 1, could: true }];
        for _ in 0..PATIENCE {
            assert!(watch.look(look()).is_empty());
        }
        assert!(watch.look(Vec::new()).is_empty());
        assert!(watch.look(look()).is_empty());
    }
}
