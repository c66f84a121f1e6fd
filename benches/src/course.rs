//! The way through a row: warm up; segments with the probe around each; segments whose rounds are timed one by one; and
//! rounds that nobody times, in which system calls and allocations are counted.
//!
//! A [`Course`] only says what comes next, so that a scenario may do its rounds in a loop ([`Course::drive`]) or within
//! listeners ([`Volley`]).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use memit::{Failure, IpcMain};

use crate::counting::{Count, Counts};
use crate::ratio::{Ratios, per_round};
use crate::times::{Laps, Times};
use crate::{Result, lock};

/// How many rounds and segments.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds of each segment.
    pub rounds: u64,
    /// Segments that are compared with the probe.
    pub compared: usize,
    /// Segments whose rounds are timed.
    pub timed: usize,
    /// Rounds of each probe.
    pub probe: u64,
    /// Rounds in which system calls and allocations are counted.
    pub counted: u64,
    /// Time after which no further segment begins: for those that are compared, and a quarter of it for those that are
    /// timed.
    pub patience: Duration,
}

/// Nanoseconds per round of what a candidate is compared with.
pub type Limit = Box<dyn FnMut() -> Result<f64> + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Compared,
    Timed,
    /// Counting has begun, and what it brings about at first does not count.
    CountedWarmUp,
    Counted,
}

/// One row on its way.
pub struct Course {
    plan: Plan,
    limit: Limit,
    counters: Box<dyn Count>,
    phase: Phase,
    /// When the phase began, and how many segments it had.
    since: Instant,
    segments: usize,
    /// The probe before the segment that is under way.
    before: f64,
    cpu_before: Duration,
    cpu: Duration,
    ratios: Ratios,
    counts: Option<Counts>,
    /// The stopwatch of the rounds.
    pub laps: Laps,
}

/// What a row came to.
#[derive(Debug)]
pub struct Outcome {
    /// Rounds that were measured.
    pub rounds: u64,
    /// The segments that were compared.
    pub ratios: Ratios,
    /// The rounds that were timed.
    pub times: Times,
    /// CPU time of both processes, in nanoseconds a round, over the segments that were compared.
    pub cpu: f64,
    /// What was counted.
    pub counts: Counts,
}

impl Course {
    /// A row that is compared with `limit`.
    pub fn new(plan: Plan, limit: Limit, counters: Box<dyn Count>) -> Result<Self> {
        Ok(Self {
            plan,
            limit,
            counters,
            phase: Phase::WarmUp,
            since: Instant::now(),
            segments: 0,
            before: 0.0,
            cpu_before: Duration::ZERO,
            cpu: Duration::ZERO,
            ratios: Ratios::default(),
            counts: None,
            laps: Laps::new()?,
        })
    }

    /// The rounds of the first segment, which warms up.
    pub fn first(&self) -> u64 {
        self.plan.rounds
    }

    /// A segment is over, and took that long. The rounds of the next one, which begins when this returns; `None` if it
    /// was the last.
    pub fn end(&mut self, took: Duration) -> Result<Option<u64>> {
        self.segments += 1;
        match self.phase {
            Phase::WarmUp => {
                self.before = (self.limit)()?;
                self.enter(Phase::Compared);
            }
            Phase::Compared => {
                self.cpu += self.counters.cpu()?.saturating_sub(self.cpu_before);
                let after = (self.limit)()?;
                self.ratios.add(self.before, per_round(took, self.plan.rounds), after);
                self.before = after;
                // Those that were dropped are made up for, within the time that there is.
                let (counted, _) = self.ratios.counts();
                if counted >= self.plan.compared || self.since.elapsed() > self.plan.patience {
                    self.laps.time(true);
                    self.enter(Phase::Timed);
                }
            }
            Phase::Timed => {
                if self.segments >= self.plan.timed || self.since.elapsed() > self.plan.patience / 4 {
                    self.laps.time(false);
                    self.counters.begin()?;
                    self.enter(Phase::CountedWarmUp);
                }
            }
            Phase::CountedWarmUp => {
                self.enter(Phase::Counted);
                self.counters.mark();
            }
            Phase::Counted => {
                self.counts = Some(self.counters.end(self.plan.counted)?);
                return Ok(None);
            }
        }
        if self.phase == Phase::Compared {
            self.cpu_before = self.counters.cpu()?;
        }
        let counts = matches!(self.phase, Phase::CountedWarmUp | Phase::Counted);
        Ok(Some(if counts { self.plan.counted } else { self.plan.rounds }))
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.segments, self.since) = (phase, 0, Instant::now());
    }

    /// What it came to.
    pub fn outcome(self) -> Outcome {
        let (counted, dropped) = self.ratios.counts();
        let compared = (counted + dropped) as u64 * self.plan.rounds;
        let times = self.laps.times();
        Outcome {
            rounds: compared + times.rounds,
            cpu: per_round(self.cpu, compared),
            times,
            ratios: self.ratios,
            counts: self.counts.unwrap_or_default(),
        }
    }

    /// Goes all the way. `segment` does as many rounds as it is told, and says how long they took.
    pub fn drive(mut self, mut segment: impl FnMut(u64, &mut Laps) -> Result<Duration>) -> Result<Outcome> {
        let mut rounds = self.first();
        loop {
            let took = segment(rounds, &mut self.laps)?;
            match self.end(took)? {
                Some(next) => rounds = next,
                None => return Ok(self.outcome()),
            }
        }
    }
}

/// A course whose rounds are made by listeners: each answer's listener sends the next message, and both sides are
/// inside `run` all the time.
pub struct Volley {
    course: Option<Course>,
    /// The number of the message that is on its way, from 1 on.
    number: u64,
    left: u64,
    began: Instant,
    main: memit::WeakIpcMain,
    ended: Ended,
}

/// Where the outcome is put.
#[derive(Clone, Default)]
pub struct Ended(Arc<Mutex<Option<Result<Outcome>>>>);

impl Ended {
    /// Dispatches until there is an outcome. The first message, which has the number 1, is on its way.
    pub fn wait(&self, main: &IpcMain) -> Result<Outcome> {
        main.run()?;
        lock(&self.0).take().ok_or("the main was shut down before the last round")?
    }
}

impl Volley {
    /// The volley, and where its outcome will be.
    pub fn new(mut course: Course, main: &IpcMain) -> (Self, Ended) {
        let ended = Ended::default();
        let began = course.laps.begin();
        let left = course.first();
        let volley =
            Self { course: Some(course), number: 1, left, began, main: main.downgrade(), ended: ended.clone() };
        (volley, ended)
    }

    /// The answer to message `number` has come; `send` sends the one with the number that it is given.
    #[inline]
    pub fn answered(&mut self, number: u64, send: impl FnOnce(u64) -> Result<()>) -> std::result::Result<(), Failure> {
        match self.next(number) {
            Ok(true) => match send(self.number) {
                Ok(()) => Ok(()),
                Err(error) => self.fail(error),
            },
            Ok(false) => Ok(()),
            Err(error) => self.fail(error),
        }
    }

    /// Whether there is another round.
    #[inline]
    fn next(&mut self, number: u64) -> Result<bool> {
        let Some(course) = &mut self.course else { return Ok(false) };
        if number != self.number {
            return Err(format!("the answer is to message {number}, and {} was sent", self.number).into());
        }
        course.laps.lap();
        self.number += 1;
        self.left -= 1;
        if self.left > 0 {
            return Ok(true);
        }
        let Some(rounds) = course.end(self.began.elapsed())? else {
            let outcome = self.course.take().map(Course::outcome);
            self.finish(outcome.ok_or_else(|| "no course".into()));
            return Ok(false);
        };
        self.left = rounds;
        self.began = course.laps.begin();
        Ok(true)
    }

    #[cold]
    fn fail(&mut self, error: Box<dyn std::error::Error + Send + Sync>) -> std::result::Result<(), Failure> {
        let failure = Failure::new(&error);
        self.course = None;
        self.finish(Err(error));
        Err(failure)
    }

    fn finish(&self, outcome: Result<Outcome>) {
        *lock(&self.ended.0) = Some(outcome);
        if let Some(main) = self.main.upgrade() {
            main.shutdown();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what it is asked to do.
    #[derive(Default)]
    struct Counted {
        steps: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Counted {
        fn step(&self, step: &'static str) {
            self.steps.lock().unwrap().push(step);
        }
    }

    impl Count for Counted {
        fn cpu(&self) -> Result<Duration> {
            self.step("cpu");
            let nanoseconds = 50 * self.steps.lock().unwrap().len() as u64;
            Ok(Duration::from_nanos(nanoseconds))
        }

        fn begin(&mut self) -> Result<()> {
            self.step("begin");
            Ok(())
        }

        fn mark(&mut self) {
            self.step("mark");
        }

        fn end(&mut self, rounds: u64) -> Result<Counts> {
            self.step("end");
            Ok(Counts { calls: Some(0.5), allocations: Some(rounds as f64) })
        }
    }

    const PLAN: Plan =
        Plan { rounds: 10, compared: 3, timed: 2, probe: 1, counted: 4, patience: Duration::from_secs(3600) };

    /// A course whose probes give these, and what its counters are asked to do.
    fn course(plan: Plan, probes: &'static [f64]) -> (Course, Arc<Mutex<Vec<&'static str>>>) {
        let mut probes = probes.iter().cycle();
        let limit = Box::new(move || Ok(*probes.next().unwrap()));
        let counted = Counted::default();
        let steps = Arc::clone(&counted.steps);
        (Course::new(plan, limit, Box::new(counted)).unwrap(), steps)
    }

    #[test]
    fn a_course_warms_up_compares_times_and_counts() {
        let (course, steps) = course(PLAN, &[100.0]);
        let mut segments = Vec::new();
        let outcome = course.drive(|rounds, laps| {
            laps.begin();
            (0..rounds).for_each(|_| laps.lap());
            segments.push((rounds, laps.times().rounds));
            Ok(Duration::from_nanos(150 * rounds))
        });
        let outcome = outcome.unwrap();
        // Rounds of each segment, and how many had been timed after it.
        assert_eq!(segments, [(10, 0), (10, 0), (10, 0), (10, 0), (10, 10), (10, 20), (4, 20), (4, 20)]);
        assert_eq!(*steps.lock().unwrap(), ["cpu", "cpu", "cpu", "cpu", "cpu", "cpu", "begin", "mark", "end"]);
        let medians = outcome.ratios.medians().unwrap();
        assert_eq!((medians.candidate, medians.probe, medians.ratio), (150.0, 100.0, 1.5));
        assert_eq!((outcome.rounds, outcome.times.rounds), (50, 20));
        assert_eq!(outcome.counts, Counts { calls: Some(0.5), allocations: Some(4.0) });
        // 50 ns for each of three segments of ten rounds.
        assert!((outcome.cpu - 5.0).abs() < 1e-9, "{}", outcome.cpu);
    }

    #[test]
    fn segments_that_are_dropped_are_made_up_for() {
        let (course, _) = course(PLAN, &[100.0, 100.0, 400.0]);
        let outcome = course.drive(|rounds, _| Ok(Duration::from_nanos(rounds))).unwrap();
        // Of three probes in turn, only two that follow each other agree.
        assert_eq!(outcome.ratios.counts(), (3, 4));
    }

    #[test]
    fn a_course_that_has_no_time_left_ends_with_what_it_has() {
        let (course, _) = course(Plan { patience: Duration::ZERO, ..PLAN }, &[100.0, 400.0]);
        let outcome = course.drive(|rounds, _| Ok(Duration::from_nanos(rounds))).unwrap();
        assert_eq!(outcome.ratios.counts(), (0, 1));
        assert_eq!(outcome.ratios.medians(), None);
        assert_eq!(outcome.counts.calls, Some(0.5));
    }
}
