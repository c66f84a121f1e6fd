//! What all scenarios of one run have in common.

use std::process::Command;
use std::time::Duration;
use std::{fmt, io};

use rustix::thread::CpuSet;

use crate::course::Plan;
use crate::machine;

/// How to measure.
#[derive(Clone)]
pub struct Setting {
    /// Bytes of a message, where they are not those of the scenario.
    pub payload: Option<usize>,
    /// Rounds that are measured for each row, where they are not those of the scenario.
    pub rounds: Option<u64>,
    /// Few and short segments.
    pub quick: bool,
    /// Starts this program as a helper: what comes after the arguments that are set here goes to
    /// [`helper::run`](crate::helper::run).
    pub launch: fn() -> Command,
    /// The cores that this process may use.
    pub allowed: CpuSet,
    /// The core that the main's measured thread is pinned to, and the peer's.
    pub cores: [usize; 2],
}

impl Setting {
    /// Measures on the first two cores that this process may use, the calling thread being pinned to the first. An
    /// error if there is only one: two processes that spin there would measure the scheduler.
    pub fn new(launch: fn() -> Command) -> io::Result<Self> {
        let allowed = machine::cores()?;
        let nth = machine::numbers(&allowed);
        let [one, two, ..] = nth[..] else {
            return Err(io::Error::other(format!(
                "measuring takes two cores, one for each process, and this one may use only core {}; allow it a second \
                 one (see taskset, or the container's settings)",
                nth.first().map_or_else(|| "?".to_owned(), ToString::to_string),
            )));
        };
        machine::pin(0)?;
        Ok(Self::on(launch, allowed, [one, two]))
    }

    /// Measures on these two of the cores that this process may use. Nothing is pinned yet.
    pub fn on(launch: fn() -> Command, allowed: CpuSet, cores: [usize; 2]) -> Self {
        Self { payload: None, rounds: None, quick: false, launch, allowed, cores }
    }

    /// This program as a helper that does `work`.
    pub(crate) fn helper(&self, work: &str) -> Command {
        let mut command = (self.launch)();
        command.arg(work);
        command
    }
}

/// How long a round takes, by order of magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Some hundreds of nanoseconds: there and back, spinning.
    Spin,
    /// Some tens of microseconds: there and back, sleeping.
    Park,
    /// Some tens of nanoseconds: one way.
    Stream,
    /// As long as so many bytes take to copy.
    Bulk,
}

impl Setting {
    /// How many rounds and segments a row of messages of `len` bytes has.
    #[must_use]
    pub fn plan(&self, pace: Pace, len: usize) -> Plan {
        /// Messages of up to so many bytes are all equally fast, as far as a plan goes.
        const SMALL: u64 = 4096;
        const BULK: u64 = 16 << 20;
        let len = (len as u64).max(SMALL);
        // A segment is short, so that many are left when the scheduler has spoilt some.
        let (rounds, compared, timed) = match pace {
            Pace::Spin => (2000 * SMALL / len, 400, 100),
            Pace::Park => (100 * SMALL / len, 200, 50),
            Pace::Stream => (50_000 * SMALL / len, 100, 25),
            Pace::Bulk => ((BULK / len).min(2000), 40, 10),
        };
        let probe = match pace {
            Pace::Spin | Pace::Stream => 2000,
            Pace::Park => 100,
            Pace::Bulk => rounds.max(1),
        };
        let fewer = if self.quick { 5 } else { 1 };
        let (compared, timed) = (compared / fewer, timed / fewer);
        let rounds = rounds.max(1);
        let rounds = self.rounds.map_or(rounds, |all| all.div_ceil((compared + timed) as u64).max(1));
        let patience = Duration::from_secs(if self.quick { 1 } else { 10 });
        Plan { rounds, compared, timed, probe, counted: rounds.min(2000), patience }
    }

    /// Bytes of a message: what is set, or what the scenario has.
    #[must_use]
    pub fn payload_or(&self, usual: usize) -> usize {
        self.payload.unwrap_or(usual)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("payload", &self.payload)
            .field("rounds", &self.rounds)
            .field("quick", &self.quick)
            .field("cores", &self.cores)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_have_as_many_rounds_as_were_asked_for_and_never_none() {
        let any = Setting::on(|| Command::new("true"), CpuSet::new(), [0, 1]);
        let setting = |quick, rounds| Setting { quick, rounds, ..any.clone() };
        for pace in [Pace::Spin, Pace::Park, Pace::Stream, Pace::Bulk] {
            for quick in [false, true] {
                for len in [1, 48, 4096, 1 << 20, 64 << 20] {
                    let plan = setting(quick, None).plan(pace, len);
                    assert!(plan.rounds > 0 && plan.probe > 0 && plan.counted > 0, "{pace:?} {len}: {plan:?}");
                    let Plan { rounds, compared, timed, .. } = setting(quick, Some(1000)).plan(pace, len);
                    let all = rounds * (compared + timed) as u64;
                    assert!((1000..1000 + (compared + timed) as u64).contains(&all), "{all}");
                }
            }
        }
    }
}
