//! The free pages of one extent, as runs.

/// Pages `first .. first + pages`, all free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u32,
    pages: u32,
}

impl Run {
    const fn end(self) -> u32 {
        self.first + self.pages
    }
}

/// Which pages of an extent are free.
///
/// The runs are sorted, none is empty and no two touch. So there is at most one more of them than there are blocks
/// taken, and what each operation costs is bounded by that.
#[derive(Debug)]
#[cfg_attr(any(test, fuzzing), derive(Clone, PartialEq, Eq))]
pub(super) struct Runs {
    free: Vec<Run>,
    /// All the pages, free or not.
    pages: u32,
}

impl Runs {
    /// `pages` pages, all free; at least one.
    pub(super) fn new(pages: u32) -> Self {
        debug_assert!(pages > 0, "an extent without pages");
        Self { free: vec![Run { first: 0, pages }], pages }
    }

    /// Takes `pages` pages in one piece, at least one, and says which is the first.
    ///
    /// The lowest run that is long enough is cut at its beginning: the pages that were used last are used again, while
    /// they are in the cache.
    pub(super) fn take(&mut self, pages: u32) -> Option<u32> {
        debug_assert!(pages > 0, "a block without pages");
        let index = self.free.iter().position(|run| run.pages >= pages)?;
        let run = &mut self.free[index];
        let first = run.first;
        if run.pages == pages {
            self.free.remove(index);
        } else {
            run.first += pages;
            run.pages -= pages;
        }
        Some(first)
    }

    /// Frees pages that [`Runs::take`] gave out, all of them in one piece.
    pub(super) fn give(&mut self, first: u32, pages: u32) {
        let given = Run { first, pages };
        let index = self.free.partition_point(|run| run.first < first);
        let before = index.checked_sub(1).map(|before| self.free[before]);
        let behind = self.free.get(index).copied();
        debug_assert!(
            pages > 0
                && given.end() <= self.pages
                && before.is_none_or(|before| before.end() <= first)
                && behind.is_none_or(|behind| given.end() <= behind.first),
            "{given:?} is not taken in {self:?}"
        );
        let joins_before = before.is_some_and(|before| before.end() == first);
        let joins_behind = behind.is_some_and(|behind| given.end() == behind.first);
        match (joins_before, joins_behind) {
            (true, true) => {
                let behind = self.free.remove(index);
                self.free[index - 1].pages += pages + behind.pages;
            }
            (true, false) => self.free[index - 1].pages += pages,
            (false, true) => {
                let behind = &mut self.free[index];
                behind.first = first;
                behind.pages += pages;
            }
            (false, false) => self.free.insert(index, given),
        }
    }

    /// Whether every page is free.
    pub(super) fn is_whole(&self) -> bool {
        self.free.first().is_some_and(|run| run.pages == self.pages)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_run_that_is_long_enough_is_taken() {
        let mut runs = Runs::new(10);
        assert_eq!([2, 3, 4].map(|pages| runs.take(pages)), [Some(0), Some(2), Some(5)]);
        runs.give(0, 2);
        runs.give(5, 4);
        assert_eq!(runs.take(3), Some(5), "the run of two pages is too short");
        assert_eq!(runs.take(1), Some(0));
        assert_eq!(runs.take(3), None, "1, 8 and 9 are free, and not in one piece");
        assert_eq!(runs.take(2), Some(8));
    }

    #[test]
    fn runs_that_touch_become_one() {
        let mut runs = Runs::new(6);
        let firsts: Vec<_> = (0..6).map(|_| runs.take(1).unwrap()).collect();
        assert_eq!((firsts, runs.take(1)), (vec![0, 1, 2, 3, 4, 5], None));
        for first in [1, 3, 2, 5, 0, 4] {
            assert!(!runs.is_whole());
            runs.give(first, 1);
        }
        assert!(runs.is_whole());
        assert_eq!(runs.take(6), Some(0));
    }

    #[derive(Clone, Copy, Debug)]
    enum Operation {
        Take(u32),
        /// Gives back the piece with this index, modulo their number.
        Give(usize),
    }

    const PAGES: u32 = 24;

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![(1..=PAGES / 3).prop_map(Operation::Take), any::<usize>().prop_map(Operation::Give)]
    }

    /// The runs of a bitmap, in order.
    fn runs_of(free: &[bool]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for first in (0..).zip(free).filter_map(|(page, free)| free.then_some(page)) {
            match runs.last_mut() {
                Some(run) if run.end() == first => run.pages += 1,
                _ => runs.push(Run { first, pages: 1 }),
            }
        }
        runs
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn runs_are_those_of_a_bitmap(operations in prop::collection::vec(operation(), 0..80)) {
            let (mut runs, mut free, mut taken) = (Runs::new(PAGES), [true; PAGES as usize], Vec::new());
            for operation in operations {
                match operation {
                    Operation::Take(pages) => {
                        let wanted = runs_of(&free).into_iter().find(|run| run.pages >= pages).map(|run| run.first);
                        prop_assert_eq!(runs.take(pages), wanted);
                        if let Some(first) = wanted {
                            free[first as usize..][..pages as usize].fill(false);
                            taken.push((first, pages));
                        }
                    }
                    Operation::Give(_) if taken.is_empty() => {}
                    Operation::Give(index) => {
                        let (first, pages) = taken.swap_remove(index % taken.len());
                        runs.give(first, pages);
                        free[first as usize..][..pages as usize].fill(true);
                    }
                }
                prop_assert_eq!(&runs.free, &runs_of(&free));
                prop_assert_eq!(runs.is_whole(), taken.is_empty());
            }
        }
    }
}
