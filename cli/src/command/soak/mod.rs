//! `memit soak`: a main and renderers in processes of their own, random messages and random deaths, and a verdict.
//!
//! | file | idea |
//! |---|---|
//! | `length`, `random` | lengths of time as users write them; numbers from a seed |
//! | `plan` | who is killed, stopped, asked to leave, and when |
//! | `cast`, `place` | the processes; the run's directory and who removes it |
//! | `lead`, `follow` | the main; a renderer |
//! | `stream`, `worker` | one end of a connection: what it hears; the threads that send and ask |
//! | `parcel`, `check` | what travels; what must be heard |
//! | `board`, `scene` | what a process has done, in a file that outlives it; all of those at once |
//! | `watch`, `held`, `growth` | who hangs; what a process holds of the system; who holds ever more |
//! | `report` | what is printed |

pub(crate) mod follow;
pub(crate) mod lead;
pub(crate) mod place;

mod board;
mod cast;
mod check;
mod growth;
mod held;
mod length;
mod parcel;
mod plan;
mod random;
mod report;
mod scene;
mod stream;
mod watch;
mod worker;

use std::{
    hash::{BuildHasher, RandomState},
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use memit::Builder;

use self::{
    cast::Cast,
    place::{Janitor, Place},
    plan::{Act, Plan, Whom},
    report::{Standing, Verdict},
    scene::{Scene, Totals},
    watch::Watch,
};
use crate::{
    interrupt,
    number::whole,
    output::{self, OutputError},
};

/// Runs a main and renderers for a while, kills and stops them at random, and checks every message.
///
/// The main and each renderer are processes of their own. They send and call in both directions from several threads,
/// with messages of any size: in the ring, in the arena, in memory of their own. The main broadcasts; both sides
/// retain messages and look at them again later. Renderers connect, leave and connect anew all the time. Meanwhile
/// processes are killed (SIGKILL), stopped (SIGSTOP) for up to three seconds, or asked to leave, and are started again.
/// The first renderer is never killed, and the last main lives from 60 % of the duration on.
///
/// Each message carries the number that its thread gave it and a check sum, and each thread writes down outside of its
/// process how far it is. So it is known of a killed process what it had sent, and all of that must be heard: once, in
/// order, unchanged. Every wait must end: a thread that does not make one step within ten looks, one a second, while its
/// process and the one at the other end run, hangs. Then it is told where every thread stands. Descriptors, maps,
/// resident and shared memory are measured once a second: what the least of the last five measurements of a process has
/// beyond the most of its warm-up must not exceed 16 descriptors, 64 maps, 64 MiB resident, 32 MiB shared. Between two
/// connections, a renderer must hold no descriptor and no map more than after its first one, and so must the main at its
/// end.
///
/// It prints a line a second and a verdict; the exit code is 0 if all went well and 1 otherwise. Ctrl-C ends it early,
/// with the verdict so far. One seed gives one sequence of sizes and deaths, but the scheduler has its share in what
/// comes of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Soak {
    /// How long it takes: a number and s, m or h.
    #[arg(long, value_name = "LENGTH", default_value = "30s", value_parser = length::parse)]
    duration: Duration,
    /// How many renderer processes there are.
    #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true,
        value_parser = whole::<u32, 1, 64>)]
    renderers: u32,
    /// What the sizes and deaths follow from [default: a random number, which is printed].
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = whole::<u64, 0, { u64::MAX }>)]
    seed: Option<u64>,
    /// Kill nobody, stop nobody, and ask nobody to leave before the end.
    #[arg(long)]
    calm: bool,
    /// Print JSON objects instead of text, one a line; the last one is the verdict.
    #[arg(long)]
    json: bool,
}

/// Why a soak failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SoakError {
    #[error("the soak cannot go on: {0}")]
    System(#[from] io::Error),
    #[error("the soak failed; memit soak --seed {seed} takes the same course:\n  {}", faults.join("\n  "))]
    Failed { seed: u64, faults: Vec<String> },
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Why a process of a soak gave up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleError {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error(transparent)]
    Bind(#[from] memit::BindError),
    #[error("dispatching failed: {0}")]
    Dispatch(#[from] memit::RunError),
    #[error("a thread panicked")]
    Panicked,
}

/// From one line to the next.
const SECOND: Duration = Duration::from_secs(1);
/// From one look at the processes to the next.
const TURN: Duration = Duration::from_millis(10);

/// Small rings and arenas, so that they fill up.
fn settings<Side>(builder: Builder<Side>) -> Builder<Side> {
    builder.ring_capacity(64 << 10).extent_size(256 << 10).arena_limit(4 << 20).arena_idle(SECOND)
}

impl Soak {
    pub(crate) fn run(self) -> Result<(), SoakError> {
        let seed = self.seed.unwrap_or_else(|| RandomState::new().hash_one(()));
        let (signalled, signals) = mpsc::channel();
        interrupt::on_interrupt(move |signal| {
            let _ = signalled.send(signal);
        })?;
        let (janitor, place) = Janitor::start()?;
        place.prepare()?;
        if !self.json {
            output::line(&format!("seed {seed}, {} renderers, {} s", self.renderers, self.duration.as_secs()))?;
        }
        let warm_up = (self.duration / 10).clamp(Duration::from_secs(4), Duration::from_secs(30));
        let mut run = Run {
            cast: Cast::new(&place, seed, self.renderers, warm_up),
            place,
            janitor,
            plan: Plan::new(seed, self.renderers, self.duration),
            watch: Watch::default(),
            past: Totals::default(),
            standing: Standing {
                elapsed: Duration::ZERO,
                totals: Totals::default(),
                deeds: cast::Deeds::default(),
                rate: 0,
            },
            begin: Instant::now(),
            looked: Instant::now(),
            calm: self.calm,
            json: self.json,
            faults: Vec::new(),
        };
        let signal = run.act(self.duration, &signals)?;
        run.end()?;
        let Run { cast, janitor, standing, mut faults, .. } = run;
        drop(cast);
        if let Err(error) = janitor.finish() {
            faults.push(error.to_string());
        }
        let verdict = Verdict { standing: &standing, seed, faults: &faults, signal };
        output::line(&if self.json { verdict.json() } else { verdict.text() })?;
        if faults.is_empty() { Ok(()) } else { Err(SoakError::Failed { seed, faults }) }
    }
}

struct Run {
    // Dropped before the janitor, which waits for the end of the processes.
    cast: Cast,
    place: Place,
    janitor: Janitor,
    plan: Plan,
    watch: Watch,
    /// Of the streams that are over.
    past: Totals,
    standing: Standing,
    begin: Instant,
    looked: Instant,
    calm: bool,
    json: bool,
    faults: Vec<String>,
}

impl Run {
    /// Lets the plan happen until the time is over, something is wrong, or a signal comes, which is returned.
    fn act(&mut self, duration: Duration, signals: &Receiver<i32>) -> Result<Option<i32>, SoakError> {
        let mut next = self.plan.next();
        while self.begin.elapsed() < duration && self.faults.is_empty() {
            while !self.calm && next.0 <= self.begin.elapsed() {
                self.cast.act(next.1)?;
                next = self.plan.next();
            }
            let plan = &mut self.plan;
            self.faults.extend(self.cast.turn(&self.janitor, || Some(plan.rest()))?);
            self.look_each_second()?;
            match signals.recv_timeout(TURN) {
                Ok(signal) => return Ok(Some(signal)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        Ok(None)
    }

    /// Has everybody leave, the renderers before the main.
    fn end(&mut self) -> Result<(), SoakError> {
        self.cast.wake_all()?;
        self.faults.extend(self.cast.growth());
        let renderers: Vec<_> = self.cast.actors().map(|(whom, _)| whom).filter(|whom| *whom != Whom::Main).collect();
        for leaving in [renderers, vec![Whom::Main]] {
            for whom in &leaving {
                self.cast.act(Act::Leave(*whom))?;
            }
            while self.faults.is_empty() && self.cast.actors().any(|(whom, _)| leaving.contains(&whom)) {
                self.faults.extend(self.cast.turn(&self.janitor, || None)?);
                self.look_each_second()?;
                std::thread::sleep(TURN);
            }
        }
        self.look()?;
        Ok(())
    }

    fn look_each_second(&mut self) -> Result<(), SoakError> {
        if self.looked.elapsed() < SECOND {
            return Ok(());
        }
        self.looked = Instant::now();
        self.cast.measure();
        self.look()?;
        output::line(&if self.json { self.standing.json(&self.cast) } else { self.standing.text(&self.cast) })?;
        Ok(())
    }

    /// Takes in what the processes have written down.
    fn look(&mut self) -> Result<(), SoakError> {
        let scene = Scene::read(&self.place, &self.cast, &mut self.past)?;
        let totals = scene.totals(&self.past);
        self.standing = Standing {
            elapsed: self.begin.elapsed(),
            rate: totals.messages.saturating_sub(self.standing.totals.messages),
            totals,
            deeds: self.cast.deeds,
        };
        let hanging = self.watch.look(scene.looks(&self.cast));
        if !hanging.is_empty() {
            let stands = scene.stands(&self.cast);
            self.faults.push(format!("no step for {} looks: {}{stands}", watch::PATIENCE, hanging.join(", ")));
        }
        self.cast.looked();
        for fault in self.place.told() {
            if !self.faults.contains(&fault) {
                self.faults.push(fault);
            }
        }
        Ok(())
    }
}
