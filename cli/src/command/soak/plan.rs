//! What happens to the processes of a run, and when: it follows from the seed.

use std::time::Duration;

use super::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Main,
    /// From 1.
    Renderer(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// SIGKILL.
    Kill(Whom),
    /// It is asked to leave.
    Leave(Whom),
    /// SIGSTOP, and SIGCONT after that time.
    Stop(Whom, Duration),
}

/// An endless list of acts.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    random: Random,
    renderers: u32,
    /// From here on the main lives.
    last_main: Duration,
    at: Duration,
}

impl Plan {
    pub(crate) fn new(seed: u64, renderers: u32, duration: Duration) -> Self {
        Self { random: Random::new(seed), renderers, last_main: duration.mul_f64(0.6), at: Duration::from_secs(1) }
    }

    /// The next act, with its time since the run began.
    pub(crate) fn next(&mut self) -> (Duration, Act) {
        self.at += Duration::from_millis(self.random.between(20, 800));
        let act = match self.random.below(100) {
            0..8 if self.at < self.last_main => Act::Kill(Whom::Main),
            8..12 if self.at < self.last_main => Act::Leave(Whom::Main),
            12..22 => Act::Stop(Whom::Main, self.pause()),
            22..30 => self.mortal().map_or(Act::Stop(Whom::Renderer(1), self.pause()), Act::Leave),
            30..65 => self.mortal().map_or(Act::Stop(Whom::Renderer(1), self.pause()), Act::Kill),
            _ => {
                let number = 1 + u32::try_from(self.random.below(self.renderers.into())).unwrap_or(0);
                Act::Stop(Whom::Renderer(number), self.pause())
            }
        };
        (self.at, act)
    }

    /// Time from the end of a process to its next life.
    pub(crate) fn rest(&mut self) -> Duration {
        Duration::from_millis(self.random.below(400))
    }

    /// Mostly short, sometimes long enough for rings and arenas to fill up.
    fn pause(&mut self) -> Duration {
        let most = if self.random.once_in(5) { 3_000 } else { 150 };
        Duration::from_millis(self.random.between(1, most))
    }

    /// Any renderer but the first, which lives for the whole run.
    fn mortal(&mut self) -> Option<Whom> {
        let others = u64::from(self.renderers) - 1;
        let number = u32::try_from(self.random.below(others)).unwrap_or(0);
        (others > 0).then_some(Whom::Renderer(2 + number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(600);

    fn acts(seed: u64, renderers: u32) -> Vec<(Duration, Act)> {
        let mut plan = Plan::new(seed, renderers, RUN);
        std::iter::repeat_with(|| plan.next()).take_while(|(at, _)| *at < RUN).collect()
    }

    #[test]
    fn one_seed_is_one_plan() {
        assert_eq!(acts(7, 4), acts(7, 4));
        assert_ne!(acts(7, 4), acts(8, 4));
    }

    #[test]
    fn every_sort_of_act_happens_and_the_first_renderer_and_the_last_main_live() {
        let acts = acts(1, 4);
        let has = |act: fn(&Act) -> bool| acts.iter().any(|(_, found)| act(found));
        assert!(has(|act| matches!(act, Act::Kill(Whom::Main))));
        assert!(has(|act| matches!(act, Act::Leave(Whom::Main))));
        assert!(has(|act| matches!(act, Act::Stop(Whom::Main, _))));
        for number in 2..=4 {
            assert!(acts.iter().any(|(_, act)| *act == Act::Kill(Whom::Renderer(number))));
            assert!(acts.iter().any(|(_, act)| *act == Act::Leave(Whom::Renderer(number))));
        }
        assert!(!has(|act| matches!(act, Act::Kill(Whom::Renderer(1)) | Act::Leave(Whom::Renderer(1)))));
        let mut ends = acts.iter().filter(|(_, act)| matches!(act, Act::Kill(Whom::Main) | Act::Leave(Whom::Main)));
        assert!(ends.next_back().unwrap().0 < RUN.mul_f64(0.6));
    }

    #[test]
    fn a_single_renderer_is_only_stopped() {
        let of_renderers = |act: &Act| matches!(act, Act::Kill(Whom::Renderer(_)) | Act::Leave(Whom::Renderer(_)));
        assert!(!acts(3, 1).iter().any(|(_, act)| of_renderers(act)));
    }
}
