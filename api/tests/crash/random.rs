//! Kills at random times: of renderers under one main, and of mains under their renderers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::ledger::Ledger;
use crate::leftovers::Leftovers;
use crate::letters::mixed;
use crate::points::{Total, warm_up};
use crate::survivors::{Main, Renderer, assert_delivered, assert_over};
use crate::victim::{Victim, was_killed};
use crate::{AT_ONCE, alone};

/// Kills before the test looks at what is left.
const ROUND: u64 = 50;
/// Renderers that live, and are killed, beside each other; and mains.
const RENDERERS: u64 = 3;
const MAINS: u64 = 2;
/// A victim starts, shakes hands and is in the midst of its traffic by then.
const LONGEST: Duration = Duration::from_millis(50);
/// Longer than any child takes to start and to end.
const LONG: Duration = Duration::from_secs(30);

/// Numbers that a seed determines.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.0)
    }

    fn delay(&mut self) -> Duration {
        Duration::from_nanos(self.next() % LONGEST.as_nanos() as u64)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() as usize % of.len()]
    }
}

const STRATEGIES: &[memit::WaitStrategy] = &[memit::WaitStrategy::Park, memit::WaitStrategy::Adaptive];

/// `MEMIT_CRASH_KILLS` says how many, `MEMIT_CRASH_SEED` when.
#[test]
fn processes_killed_at_random_times_lose_nothing_hold_up_nobody_and_leave_nothing() {
    let _alone = alone();
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let kills = number("MEMIT_CRASH_KILLS").unwrap_or(1000);
    let now = || u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    let seed = number("MEMIT_CRASH_SEED").unwrap_or_else(now);
    println!("MEMIT_CRASH_SEED={seed}");
    warm_up();
    let before = Leftovers::now();
    let mut random = Random(seed);
    let mut total = Total::default();
    let mut of_mains = 0;
    while total.kills < kills {
        renderers_die(&mut random, ROUND.min(kills - total.kills), &mut total);
        before.assert_back();
        let mains = ROUND.min(kills - total.kills);
        of_mains += mains;
        mains_die(&mut random, mains, &mut total);
        before.assert_back();
    }
    let Total { kills, messages, slowest } = total;
    println!(
        "random kills: seed {seed}, {kills} kills ({of_mains} of mains), {messages} messages, slowest end {slowest:?}"
    );
}

/// The shares of `all` that fall to each of `workers`.
fn shares(all: u64, workers: u64) -> impl Iterator<Item = u64> {
    (0..workers).map(move |worker| all / workers + u64::from(worker < all % workers))
}

/// One main lives on while its renderers come and are killed.
fn renderers_die(random: &mut Random, kills: u64, total: &mut Total) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("run").to_string_lossy().into_owned();
    let ledger = Arc::new(Ledger::new());
    let main = Main::bind(&dir, &ledger, random.pick(STRATEGIES));
    let alone = Leftovers::now();
    let killed: Vec<i32> = thread::scope(|scope| {
        let (dir, ledger, traffic) = (&dir, &ledger, &*main.traffic);
        let worker = |share: u64| {
            let mut random = Random(random.next());
            scope.spawn(move || {
                let mut killed = Vec::new();
                let mut slowest = Duration::ZERO;
                for _ in 0..share {
                    let role = random.pick(&["renderer.park", "renderer.adaptive"]);
                    let mut victim = Victim::start(role, dir, ledger, None);
                    thread::sleep(random.delay());
                    let status = victim.kill();
                    assert!(was_killed(status), "a renderer ended by itself, with {status}");
                    slowest = slowest.max(assert_over(traffic, victim.pid()));
                    killed.push(victim.pid());
                }
                (killed, slowest)
            })
        };
        let workers: Vec<_> = shares(kills, RENDERERS).map(worker).collect();
        let outcomes = workers.into_iter().map(|worker| worker.join().unwrap());
        outcomes.fold(Vec::new(), |mut all, (killed, slowest)| {
            total.slowest = total.slowest.max(slowest);
            all.extend(killed);
            all
        })
    });
    // Whoever had said that it is ready before it was killed has come by now, and gone.
    alone.assert_back();
    for pid in killed {
        assert_over(&main.traffic, pid);
        total.messages += assert_delivered(&ledger, pid);
    }
    total.kills += kills;
    main.assert_serves();
    main.end();
}

/// Mains bind one name after another and are killed, while renderers of this process and of another come to them.
fn mains_die(random: &mut Random, kills: u64, total: &mut Total) {
    let (messages, slowest) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let (messages, slowest) = (&messages, &slowest);
        for share in shares(kills, MAINS) {
            let mut random = Random(random.next());
            scope.spawn(move || {
                let parent = tempfile::tempdir().unwrap();
                let dir = parent.path().join("run").to_string_lossy().into_owned();
                for _ in 0..share {
                    let (delivered, end) = main_dies(&dir, &mut random);
                    messages.fetch_add(delivered, Ordering::Relaxed);
                    slowest.fetch_max(end.as_nanos() as u64, Ordering::Relaxed);
                }
                Main::bind(&dir, &Arc::new(Ledger::new()), random.pick(STRATEGIES)).end();
            });
        }
    });
    total.kills += kills;
    total.messages += messages.into_inner();
    total.slowest = total.slowest.max(Duration::from_nanos(slowest.into_inner()));
}

fn main_dies(dir: &str, random: &mut Random) -> (u64, Duration) {
    let ledger = Arc::new(Ledger::new());
    let mut victim = Victim::start(random.pick(&["main.park", "main.adaptive"]), dir, &ledger, None);
    let pid = victim.pid();
    let delay = random.delay();
    thread::scope(|scope| {
        let killer = scope.spawn(move || {
            thread::sleep(delay);
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            Instant::now()
        });
        let (mut renderers, mut elsewhere) = (Vec::new(), None);
        // Unless it is killed before.
        if victim.hear(LONG).is_some() {
            let renderer = Renderer::connect(dir, &ledger, random.pick(STRATEGIES));
            elsewhere = Some(Victim::start("survivor.park", dir, &ledger, None));
            renderers.extend(renderer);
            renderers.extend(Renderer::connect(dir, &ledger, random.pick(STRATEGIES)));
        }
        let status = victim.ends(LONG).expect("the main is killed");
        assert!(was_killed(status), "a main ended by itself, with {status}");
        let killed = killer.join().unwrap();
        renderers.into_iter().for_each(|renderer| renderer.end(pid, AT_ONCE));
        let end = killed.elapsed();
        if let Some(mut survivor) = elsewhere {
            let status = survivor.ends(LONG).expect("a renderer in another process ends after its main");
            assert!(status.success(), "a renderer in another process ended with {status}");
        }
        (assert_delivered(&ledger, pid), end)
    })
}
