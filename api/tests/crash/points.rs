//! The list of all crash points. A process is killed at each, some passages on as well, as main and as renderer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memit::WaitStrategy;

use crate::ledger::Ledger;
use crate::leftovers::{Leftovers, files};
use crate::survivors::{Main, Renderer, assert_delivered, assert_over};
use crate::victim::{Victim, was_killed};
use crate::{APP, alone};

/// Who passes a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// A main or a renderer in the midst of its traffic.
    Both,
    Renderer,
    /// A main with two renderers.
    MainOfTwo,
    /// A main or a renderer that shuts down after some traffic.
    BothEnding,
    /// A main that binds and shuts down, in a new directory and in one that killed mains have left.
    Binder,
    /// The same, in a new directory only, and with a umask that takes everything away.
    FirstBinder,
}
use By::{Binder, Both, BothEnding, FirstBinder, MainOfTwo, Renderer as RendererAlone};

/// The passages at which a process is killed.
const ONCE: &[u64] = &[1];
const TWICE: &[u64] = &[1, 2];
const OFTEN: &[u64] = &[1, 2, 30];

/// Every crash point of the product, in the order in which a message, a call, a payload, a connection and a name pass
/// them.
const POINTS: &[(&str, By, &[u64])] = &[
    ("claim-taken", Both, OFTEN),
    ("claim-half-written", Both, OFTEN),
    ("claim-written", Both, OFTEN),
    ("frame-stamped-behind-padding", Both, OFTEN),
    ("publish-before", Both, OFTEN),
    ("publish-after", Both, OFTEN),
    ("frame-copied", Both, OFTEN),
    ("frame-released", Both, OFTEN),
    ("head-before", Both, OFTEN),
    ("head-after", Both, OFTEN),
    ("consumed-published", Both, ONCE),
    ("announcement-piece", Both, TWICE),
    ("announced", Both, TWICE),
    ("backlog-sent", Both, TWICE),
    // Bells.
    ("data-arm-before", Both, OFTEN),
    ("data-arm-after", Both, OFTEN),
    ("data-sleep", Both, OFTEN),
    ("bells-arm-before", MainOfTwo, OFTEN),
    ("bells-arm-after", MainOfTwo, OFTEN),
    ("bells-sleep", MainOfTwo, OFTEN),
    ("waiter-arm-before", Both, OFTEN),
    ("waiter-arm-after", Both, OFTEN),
    ("waiter-sleep", Both, OFTEN),
    ("space-wanted", Both, OFTEN),
    ("blocks-armed", Both, OFTEN),
    ("reply-armed", Both, OFTEN),
    ("ring-before", Both, OFTEN),
    ("bell-bumped", Both, OFTEN),
    ("ring-woken", Both, OFTEN),
    ("ring-after", Both, OFTEN),
    // Calls.
    ("waiting-shown", Both, TWICE),
    ("call-before-frame", Both, OFTEN),
    ("call-after-frame", Both, OFTEN),
    ("call-taken", Both, OFTEN),
    ("reply-before", Both, OFTEN),
    ("reply-half-written", Both, OFTEN),
    ("reply-before-id", Both, OFTEN),
    ("reply-after-id", Both, OFTEN),
    ("reply-after", Both, OFTEN),
    ("reply-lent", Both, TWICE),
    ("reply-found", Both, OFTEN),
    ("call-ended", Both, OFTEN),
    ("abandon-before", Both, TWICE),
    ("abandon-heard", Both, TWICE),
    // Payload memory.
    ("extent-made", Both, TWICE),
    ("payload-lent", Both, OFTEN),
    ("payload-sealed", Both, TWICE),
    ("descriptor-before", Both, OFTEN),
    ("descriptor-sent", Both, OFTEN),
    ("extent-passed", Both, TWICE),
    ("sealed-passed", Both, TWICE),
    ("frame-of-memory-before", Both, OFTEN),
    ("descriptor-heard", Both, OFTEN),
    ("extent-mapped", Both, TWICE),
    ("block-found", Both, OFTEN),
    ("sealed-mapped", Both, TWICE),
    ("sealed-unmapped", Both, TWICE),
    ("give-back-mid-entry", Both, OFTEN),
    ("give-back-not-counted", Both, OFTEN),
    ("give-back-counted", Both, OFTEN),
    ("give-back-read", Both, OFTEN),
    ("retire-before", Both, TWICE),
    ("retire-after", Both, TWICE),
    ("retire-heard", Both, TWICE),
    ("extent-unmapped", Both, TWICE),
    ("retire-done", Both, TWICE),
    // The handshake.
    ("connected", RendererAlone, ONCE),
    ("accepted", MainOfTwo, TWICE),
    ("hello-before", RendererAlone, ONCE),
    ("hello-sent", RendererAlone, ONCE),
    ("hello-received", MainOfTwo, TWICE),
    ("welcome-before", MainOfTwo, TWICE),
    ("welcome-sent", MainOfTwo, TWICE),
    ("welcome-received", RendererAlone, ONCE),
    ("ready-before", RendererAlone, ONCE),
    ("ready-sent", RendererAlone, ONCE),
    ("ready-received", MainOfTwo, TWICE),
    ("link-made", Both, ONCE),
    // The end.
    ("goodbye-before", BothEnding, ONCE),
    ("goodbye-sent", BothEnding, ONCE),
    ("hung-up", BothEnding, ONCE),
    // The name.
    ("bind-directory-made", FirstBinder, ONCE),
    ("bind-lock-opened", Binder, ONCE),
    ("bind-locked", Binder, ONCE),
    ("bind-holder-truncated", Binder, ONCE),
    ("bind-leftovers-before", Binder, ONCE),
    ("bind-socket-bound", Binder, ONCE),
    ("bind-mode-set", Binder, ONCE),
    ("bind-listening", Binder, ONCE),
    ("bind-renamed", Binder, ONCE),
    ("bind-before-accepting", Binder, ONCE),
    ("unlink-before", Binder, ONCE),
    ("unlink-after", Binder, ONCE),
    ("acceptor-closed", Binder, ONCE),
    ("unlock-before", Binder, ONCE),
    ("unlock-after", Binder, ONCE),
];

/// A victim that lives longer passes its point never.
const REACHED: Duration = Duration::from_secs(30);

/// What came of all kills.
#[derive(Default)]
pub struct Total {
    pub kills: u64,
    pub messages: u64,
    /// The longest that anything took to end after a death.
    pub slowest: Duration,
}

#[test]
fn every_point_of_the_code_is_listed_and_every_one_listed_is_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    ["ringbuf/src", "engine/src", "api/src"].iter().for_each(|crate_| points_below(&root.join(crate_), &mut found));
    let distinct: BTreeSet<_> = found.iter().cloned().collect();
    assert_eq!(distinct.len(), found.len(), "each point has a name of its own");
    assert_eq!(distinct, POINTS.iter().map(|(name, ..)| (*name).to_owned()).collect());
    assert_eq!(distinct.len(), POINTS.len());
}

fn points_below(dir: &PathBuf, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            points_below(&path, found);
        } else {
            let text = fs::read_to_string(path).unwrap();
            let calls = text.split("crash_point!(").skip(1);
            found.extend(calls.map(|call| call.split('"').nth(1).unwrap_or_default().to_owned()));
        }
    }
}

/// `MEMIT_CRASH_ONLY` names the one point to be looked at.
#[test]
fn a_process_killed_at_any_point_loses_nothing_holds_up_nobody_and_leaves_nothing() {
    let _alone = alone();
    let only = std::env::var("MEMIT_CRASH_ONLY").ok();
    warm_up();
    let before = Leftovers::now();
    let mut total = Total::default();
    let mut points = 0;
    for (name, by, passages) in POINTS.iter().filter(|(name, ..)| only.as_deref().is_none_or(|only| only == *name)) {
        points += 1;
        for nth in *passages {
            for scenario in scenarios(*by, *nth) {
                let began = Instant::now();
                scenario.run(name, *nth, &mut total);
                before.assert_back();
                println!("{name}:{nth} {scenario:?} {:?}", began.elapsed());
            }
        }
    }
    let Total { kills, messages, slowest } = total;
    println!("crash points: {points} points, {kills} kills, {messages} messages, slowest end {slowest:?}");
}

/// Starts the library's thread, which stays.
pub fn warm_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("run").to_string_lossy().into_owned();
    let ledger = Arc::new(Ledger::new());
    let main = Main::bind(&dir, &ledger, WaitStrategy::Park);
    main.assert_serves();
    main.end();
}

#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// The victim's role and strategy, and the survivor's.
    Renderer(&'static str, WaitStrategy),
    /// The same, and how many renderers it has.
    Main(&'static str, WaitStrategy, usize),
    /// The victim's role, and whether killed mains have used the directory before.
    Binder(&'static str, bool),
}

fn scenarios(by: By, nth: u64) -> Vec<Scenario> {
    // The victim always sleeps as soon as it can, so that it passes every point of the bells.
    let wait = if nth.is_multiple_of(2) { WaitStrategy::Adaptive } else { WaitStrategy::Park };
    let renderer = Scenario::Renderer("renderer.park", wait);
    let main = |renderers| Scenario::Main("main.park", wait, renderers);
    match by {
        By::Both => vec![renderer, main(1)],
        By::Renderer => vec![renderer],
        By::MainOfTwo => vec![main(2)],
        By::BothEnding => {
            vec![Scenario::Renderer("renderer-that-ends.park", wait), Scenario::Main("main-that-ends.park", wait, 1)]
        }
        By::Binder => vec![Scenario::Binder("bind.park", false), Scenario::Binder("bind.park", true)],
        By::FirstBinder => vec![Scenario::Binder("bind-masked.park", false)],
    }
}

impl Scenario {
    fn run(self, point: &str, nth: u64, total: &mut Total) {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("run").to_string_lossy().into_owned();
        let ledger = Arc::new(Ledger::new());
        let crash = (point, nth);
        match self {
            Self::Renderer(role, wait) => {
                let main = Main::bind(&dir, &ledger, wait);
                let mut victim = Victim::start(role, &dir, &ledger, Some(crash));
                dies(&mut victim, crash);
                total.slowest = total.slowest.max(assert_over(&main.traffic, victim.pid()));
                main.assert_serves();
                main.end();
                total.messages += assert_delivered(&ledger, victim.pid());
            }
            Self::Main(role, wait, renderers) => {
                let mut victim = Victim::start(role, &dir, &ledger, Some(crash));
                assert_eq!(victim.hear(REACHED).as_deref(), Some("bound"));
                let connect = |_| Renderer::connect(&dir, &ledger, wait);
                let survivors: Vec<_> = (0..renderers).filter_map(connect).collect();
                dies(&mut victim, crash);
                let began = Instant::now();
                survivors.into_iter().for_each(|renderer| renderer.end(victim.pid(), crate::AT_ONCE));
                total.slowest = total.slowest.max(began.elapsed());
                total.messages += assert_delivered(&ledger, victim.pid());
                the_next_binds(&dir, &ledger);
            }
            Self::Binder(role, again) => {
                if again {
                    for (earlier, left) in [("bind-before-accepting", ".sock"), ("bind-listening", ".tmp")] {
                        let mut killed = Victim::start("bind.park", &dir, &ledger, Some((earlier, 1)));
                        dies(&mut killed, (earlier, 1));
                        assert!(files(&dir).iter().any(|file| file.ends_with(left)), "{:?}", files(&dir));
                    }
                }
                let mut victim = Victim::start(role, &dir, &ledger, Some(crash));
                dies(&mut victim, crash);
                the_next_binds(&dir, &ledger);
            }
        }
        total.kills += 1;
    }
}

fn dies(victim: &mut Victim, (point, nth): (&str, u64)) {
    let status = victim.ends(REACHED).unwrap_or_else(|| panic!("{point}:{nth} was not reached in {REACHED:?}"));
    assert!(was_killed(status), "{point}:{nth} was not reached: the process ended with {status}");
}

/// Nothing hinders the next main, and nothing of the killed one stays beside it.
fn the_next_binds(dir: &str, ledger: &Arc<Ledger>) {
    let main = Main::bind(dir, ledger, WaitStrategy::Park);
    main.assert_serves();
    assert_eq!(files(dir), [format!("{APP}.lock"), format!("{APP}.sock")]);
    main.end();
}
