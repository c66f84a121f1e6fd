//! Pairs of processes side by side, up to many more than there are cores, by each way of waiting; and one pair that has
//! little to say.
//!
//! Each pair is a driver process and a partner process, with a connection for each way of waiting. In a phase the
//! drivers make round trips by one of them, and nobody waits in another way; the phases of a segment follow each other
//! at once. All processes may use both of the measured cores and no other. Drivers are told of a phase, and tell what
//! came of it, over connections of their own to the process that measures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memit::{Channel, IpcMain, WaitStrategy};
use rustix::thread::CpuSet;

use super::pair::Pair;
use super::{Report, answer};
use crate::board;
use crate::counting::cpu::CpuClock;
use crate::machine::unpinned;
use crate::message::{self, Tick};
use crate::peer::Peer;
use crate::process::{Directory, Process};
use crate::ratio::{Ratios, per_round};
use crate::row::Row;
use crate::setting::Setting;
use crate::shared::Shared;
use crate::stage::{self, APP, WAITS};
use crate::times::{Times, histogram, nanoseconds};
use crate::{Result, lock};

pub(super) const DRIVER: &str = "pairs-driver";
pub(super) const PARTNER: &str = "pairs-partner";

const PAIRS: &[usize] = &[1, 2, 4, 8];
const QUICK_PAIRS: &[usize] = &[1, 8];

/// What a pair with little to say waits between two round trips.
const PAUSE: Duration = Duration::from_millis(1);

/// One way of waiting, for so long or for so many rounds.
#[memit::message(plain)]
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// Phases are numbered from 1 on.
    number: u64,
    /// Its place in [`WAITS`].
    wait: u64,
    lasts_ns: u64,
    rounds: u64,
    pause_ns: u64,
}

/// What came of a phase in one pair.
#[memit::message]
struct Told {
    rounds: u64,
    took_ns: u64,
    /// What single rounds took, and how many took that.
    times: Vec<(u64, u64)>,
}

const PHASE: Channel<Phase> = Channel::new("phase");
const TOLD: Channel<Told> = Channel::new("told");
/// Tells a partner of a phase, by its number, to serve by one way of waiting, and then that it is over. The one is
/// always sent by the connection of [`PARK`], the other by that of the phase.
const SERVE: Channel<(u64, u64)> = Channel::new("serve");
const OVER: Channel<u64> = Channel::new("over");

/// The way of waiting that costs nothing while a pair has nothing to do: its place in [`WAITS`].
const PARK: usize = 1;
const _: () = assert!(matches!(WAITS[PARK].1, WaitStrategy::Park));

fn app(pair: usize, wait: &str) -> String {
    format!("pair-{pair}-{wait}")
}

/// Makes round trips when it is told.
pub(super) fn driver(peer: &Peer) -> Result<()> {
    let (len, nth) = (peer.number(0)?, peer.number(1)?);
    let bind = |(name, wait)| IpcMain::builder().runtime_dir(&peer.directory).wait(wait).bind(&app(nth, name));
    let mains = WAITS.map(bind).into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let told = peer.builder().connect(APP)?;
    let mut pairs = Vec::new();
    for main in &mains {
        stage::connected(main, 1)?;
        pairs.push(Pair::new(main, len)?);
    }

    let asked = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&asked);
    told.on(PHASE, move |_, phase| *lock(&heard) = Some(*phase));
    loop {
        told.run_once(Duration::MAX)?;
        let Some(phase) = lock(&asked).take() else { continue };
        let found = drive(&mut pairs, phase)?;
        told.send(TOLD, &found)?;
    }
}

fn drive(pairs: &mut [Pair], phase: Phase) -> Result<Told> {
    let wait = usize::try_from(phase.wait)?;
    pairs[PARK].renderer.send(SERVE, &(phase.number, phase.wait))?;
    let pair = pairs.get_mut(wait).ok_or("there is no such way to wait")?;
    // The first answer comes when the partner has heard that.
    pair.round()?;
    let mut times = histogram()?;
    let (lasts, pause) = (Duration::from_nanos(phase.lasts_ns), Duration::from_nanos(phase.pause_ns));
    let began = Instant::now();
    let mut last = began;
    while last - began < lasts && times.len() < phase.rounds {
        if !pause.is_zero() {
            thread::sleep(pause);
            last = Instant::now();
        }
        pair.round()?;
        let now = Instant::now();
        times.saturating_record(nanoseconds(now - last));
        last = now;
    }
    pair.renderer.send(OVER, &phase.number)?;
    Ok(Told {
        rounds: times.len(),
        took_ns: nanoseconds(last - began),
        times: times.iter_recorded().map(|time| (time.value_iterated_to(), time.count_at_value())).collect(),
    })
}

/// Answers a driver, phase by phase.
pub(super) fn partner(peer: &Peer) -> Result<()> {
    let (len, nth) = (peer.number(0)?, peer.number(1)?);
    let connect = |(name, wait)| peer.builder().wait(wait).connect(&app(nth, name));
    let renderers = WAITS.map(connect).into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let over = Arc::new(AtomicU64::new(0));
    for renderer in &renderers {
        answer::answer::<Tick>(renderer, len);
        let over = Arc::clone(&over);
        renderer.on(OVER, move |_, number| over.store(number.to_native(), Ordering::Relaxed));
    }
    let asked = Arc::new(Mutex::new((0, 0)));
    let heard = Arc::clone(&asked);
    renderers[PARK].on(SERVE, move |_, phase| *lock(&heard) = (phase.0.to_native(), phase.1.to_native()));
    loop {
        // One poll may bring the end of a phase and the next one.
        let (number, wait) = *lock(&asked);
        let is_over = over.load(Ordering::Relaxed) == number;
        let wait = if is_over { PARK } else { usize::try_from(wait)? };
        renderers.get(wait).ok_or("there is no such way to wait")?.run_once(Duration::MAX)?;
    }
}

pub(super) fn measure(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    let len = setting.payload_or(message::LEN);
    let (segments, lasts) = if setting.quick { (3, 150) } else { (10, 300) };
    let lasts = Duration::from_millis(lasts);
    for &count in if setting.quick { QUICK_PAIRS } else { PAIRS } {
        let mut field = Field::set(setting, len, count)?;
        let rows = field.segments(segments, lasts, Duration::ZERO)?;
        for ((name, wait), ways) in WAITS.into_iter().zip(&rows) {
            let row = ways.row(setting, &format!("pairs-{name}"), wait, len, count);
            report(row.compared("best fixed", &ways.ratios))?;
        }
    }
    let mut field = Field::set(setting, len, 1)?;
    let rows = field.segments(segments, lasts, PAUSE)?;
    for ((name, wait), ways) in WAITS.into_iter().zip(&rows) {
        report(ways.row(setting, &format!("paced-{name}"), wait, len, 1))?;
    }
    Ok(())
}

/// The pairs.
struct Field {
    processes: Vec<Process>,
    clocks: Vec<CpuClock>,
    main: IpcMain,
    told: Arc<Mutex<Heard>>,
    count: usize,
    phases: u64,
    rounds: Option<u64>,
}

/// What came of one way of waiting.
struct Ways {
    ratios: Ratios,
    times: Histogram<u64>,
    cpu: Duration,
}

/// What drivers have told of a phase so far.
#[derive(Default)]
struct Heard {
    drivers: usize,
    /// Rounds in a nanosecond, of all pairs.
    rate: f64,
    times: Vec<(u64, u64)>,
}

impl Field {
    fn set(setting: &Setting, len: usize, count: usize) -> Result<Self> {
        let mut both = CpuSet::new();
        setting.cores.into_iter().for_each(|core| both.set(core));
        let setting = Setting { allowed: both, ..setting.clone() };
        let directory = Directory::new()?;
        let shared = Shared::create(board::LEN)?;
        let main = unpinned(&setting.allowed, || {
            IpcMain::builder().runtime_dir(directory.path()).wait(WaitStrategy::Park).bind(APP)
        })??;
        let start = |role, nth| {
            stage::start(&setting, &shared, &directory, role, WaitStrategy::Park, &[len as u64, nth as u64])
        };
        let drivers = (0..count).map(|nth| start(DRIVER, nth)).collect::<Result<Vec<_>>>()?;
        // Their mains are bound by then.
        stage::connected(&main, count)?;
        let mut processes = (0..count).map(|nth| start(PARTNER, nth)).collect::<Result<Vec<_>>>()?;
        processes.extend(drivers);
        let clocks = processes.iter().map(|process| CpuClock::of(process.pid())).collect::<std::io::Result<_>>()?;

        let told = Arc::new(Mutex::new(Heard::default()));
        let heard = Arc::clone(&told);
        main.on(TOLD, move |_, told| {
            let (rounds, took) = (told.rounds.to_native(), told.took_ns.to_native());
            let mut heard = lock(&heard);
            heard.drivers += 1;
            heard.rate += 1.0 / per_round(Duration::from_nanos(took), rounds);
            heard.times.extend(told.times.iter().map(|time| (time.0.to_native(), time.1.to_native())));
        });
        let mut field = Self { processes, clocks, main, told, count, phases: 0, rounds: setting.rounds };
        // Everybody is connected when the first phase is over, and has room for what it learns.
        for wait in 0..WAITS.len() {
            field.phase(wait, Duration::from_millis(20), Duration::ZERO)?;
        }
        drop(directory);
        Ok(field)
    }

    /// What came of each way of waiting, in the order of [`WAITS`].
    fn segments(&mut self, segments: usize, lasts: Duration, pause: Duration) -> Result<Vec<Ways>> {
        let new = |_| -> Result<Ways> {
            let times = histogram()?;
            Ok(Ways { ratios: Ratios::default(), times, cpu: Duration::ZERO })
        };
        let mut ways = WAITS.iter().map(new).collect::<Result<Vec<_>>>()?;
        for segment in 0..segments {
            let mut each = [0.0; WAITS.len()];
            // Each way comes first as often as the others: what drifts meets all of them.
            for wait in (0..WAITS.len()).map(|nth| (segment + nth) % WAITS.len()) {
                let way = &mut ways[wait];
                let before = self.cpu()?;
                let heard = self.phase(wait, lasts, pause)?;
                way.cpu += self.cpu()?.saturating_sub(before);
                for (value, count) in heard.times {
                    way.times.saturating_record_n(value, count);
                }
                each[wait] = 1.0 / heard.rate;
            }
            // Of two figures that scatter the better one is taken, each time anew, so no way comes to 1 on average.
            let fixed = WAITS.iter().zip(&each).filter(|((_, wait), _)| *wait != WaitStrategy::Adaptive);
            let best = fixed.map(|(_, took)| *took).fold(f64::INFINITY, f64::min);
            for (way, took) in ways.iter_mut().zip(each) {
                way.ratios.add(best, took, best);
            }
        }
        Ok(ways)
    }

    fn phase(&mut self, wait: usize, lasts: Duration, pause: Duration) -> Result<Heard> {
        self.phases += 1;
        let phase = Phase {
            number: self.phases,
            wait: wait as u64,
            lasts_ns: nanoseconds(lasts),
            rounds: self.rounds.unwrap_or(u64::MAX),
            pause_ns: nanoseconds(pause),
        };
        for driver in self.main.renderers() {
            driver.send(PHASE, &phase)?;
        }
        loop {
            self.main.run_once(Duration::MAX)?;
            let mut heard = lock(&self.told);
            if heard.drivers == self.count {
                return Ok(std::mem::take(&mut heard));
            }
        }
    }

    fn cpu(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for clock in &self.clocks {
            sum += clock.now()?;
        }
        Ok(sum)
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // Neither of a pair goes on without the other.
        self.processes.iter().for_each(Process::is_to_end);
    }
}

impl Ways {
    fn row(&self, setting: &Setting, name: &str, wait: WaitStrategy, len: usize, pairs: usize) -> Row {
        let rounds = self.times.len();
        Row {
            rounds,
            times: Some(Times::of(&self.times)),
            cpu_ns_per_msg: Some(per_round(self.cpu, rounds)),
            segments: self.ratios.counts().0,
            ..Row::empty(setting, name, wait, len).peers(pairs)
        }
    }
}
