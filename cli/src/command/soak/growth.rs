//! Whether a process holds ever more: compares what it holds at its end with what it held when it was warm.

use std::{collections::VecDeque, time::Duration};

use super::held::Held;

/// What a process may hold beyond the most that it held while it warmed up: connections that are being made, pieces of
/// arenas, messages that are retained, and what an allocator keeps.
pub(crate) const ALLOWED: Held =
    Held { descriptors: 16, maps: 64, shared_maps: 32, resident: 64 << 20, shared: 32 << 20 };

/// How many of the last measurements count: a process that grows holds more in each of them.
const LAST: usize = 5;

/// A kind of what is held, and how much of it there is.
type Kind = (&'static str, fn(&Held) -> u64);

#[derive(Clone, Debug)]
pub(crate) struct Growth {
    warm_up: Duration,
    /// The most that was held during the second half of the warm-up.
    warm: Option<Held>,
    last: VecDeque<Held>,
}

impl Growth {
    pub(crate) fn new(warm_up: Duration) -> Self {
        Self { warm_up, warm: None, last: VecDeque::new() }
    }

    /// A measurement of the process at that age.
    pub(crate) fn measured(&mut self, age: Duration, held: Held) {
        if age < self.warm_up / 2 {
            return;
        }
        if age < self.warm_up {
            self.warm = Some(self.warm.map_or(held, |warm| pick(warm, held, u64::max)));
            return;
        }
        self.last.push_back(held);
        if self.last.len() > LAST {
            self.last.pop_front();
        }
    }

    /// What the process holds too much of. Nothing is said of one that did not live for long enough.
    pub(crate) fn faults(&self) -> Vec<String> {
        let Some(warm) = self.warm else { return Vec::new() };
        if self.last.len() < LAST {
            return Vec::new();
        }
        let Some(least) = self.last.iter().copied().reduce(|least, held| pick(least, held, u64::min)) else {
            return Vec::new();
        };
        let kinds: [Kind; 5] = [
            ("descriptors", |held| held.descriptors),
            ("maps", |held| held.maps),
            ("maps of shared memory", |held| held.shared_maps),
            ("bytes resident", |held| held.resident),
            ("bytes of shared memory", |held| held.shared),
        ];
        let too_much = kinds.iter().filter(|(_, of)| of(&least) > of(&warm) + of(&ALLOWED));
        too_much
            .map(|(what, of)| {
                format!(
                    "it held {} {what} when warm and holds {} at the end, {} more are allowed",
                    of(&warm),
                    of(&least),
                    of(&ALLOWED)
                )
            })
            .collect()
    }
}

fn pick(one: Held, other: Held, choose: fn(u64, u64) -> u64) -> Held {
    Held {
        descriptors: choose(one.descriptors, other.descriptors),
        maps: choose(one.maps, other.maps),
        shared_maps: choose(one.shared_maps, other.shared_maps),
        resident: choose(one.resident, other.resident),
        shared: choose(one.shared, other.shared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(of: impl Fn(u64) -> Held) -> Vec<String> {
        let mut growth = Growth::new(Duration::from_secs(10));
        for second in 0..60 {
            growth.measured(Duration::from_secs(second), of(second));
        }
        growth.faults()
    }

    const USUAL: Held = Held { descriptors: 20, maps: 100, shared_maps: 10, resident: 10 << 20, shared: 4 << 20 };

    #[test]
    fn what_stays_or_comes_and_goes_is_no_growth() {
        assert!(after(|_| USUAL).is_empty());
        assert!(after(|second| Held { descriptors: if second % 4 == 0 { 30 } else { 300 }, ..USUAL }).is_empty());
    }

    #[test]
    fn each_kind_of_growth_is_told() {
        assert!(after(|second| Held { descriptors: 20 + second, ..USUAL })[0].contains("descriptors"));
        assert!(after(|second| Held { maps: 100 + 2 * second, ..USUAL })[0].contains("maps"));
        assert!(after(|second| Held { resident: second * (2 << 20), ..USUAL })[0].contains("resident"));
        assert!(after(|second| Held { shared: second << 20, ..USUAL })[0].contains("shared memory"));
    }

    #[test]
    fn a_short_life_says_nothing() {
        let mut growth = Growth::new(Duration::from_secs(10));
        growth.measured(Duration::from_secs(7), USUAL);
        growth.measured(Duration::from_secs(11), Held { descriptors: 1000, ..USUAL });
        assert!(growth.faults().is_empty());
    }
}
