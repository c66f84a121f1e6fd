//! Starts victim and attacker, measures, and judges.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::attacks::{Act, Attack, Order, Verdict, fuse};
use crate::honest::{Honest, Time, Times};
use crate::seed::FIXED;
use crate::snapshot::Snapshot;
use crate::wire::peer::Side;

/// Longer than anything that ends takes.
const DEADLINE: Duration = Duration::from_secs(45);
/// What an allocator may keep, of memory that was freed.
const KEPT: usize = 8 << 20;
/// How many times longer than before an attack all but one in a hundred round trips may take.
const SLOWER: u32 = 3;

/// A child that is this very program, and is killed at the latest when the test ends.
struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Process {
    fn start(role: &str, argument: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
            .env("MEMIT_TEST_ROLE", format!("{role} {argument}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let said = line.split_once("child says: ").map(|(_, said)| said.to_owned());
                if said.is_some_and(|said| sender.send(said).is_err()) {
                    return;
                }
            }
        });
        Self { child, input, lines }
    }

    fn hear(&self) -> String {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => panic!("a child process has ended"),
            Err(RecvTimeoutError::Timeout) => panic!("a child process says nothing for {DEADLINE:?}"),
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("a child process has ended");
    }

    fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How thoroughly.
pub struct Plan {
    /// Only attacks whose name contains this.
    only: Option<String>,
    seeds: Vec<u64>,
    rounds: usize,
    window: Duration,
    pub is_measured: bool,
}

impl Plan {
    /// A short one, unless `MEMIT_HOSTILE` is `full`.
    pub fn from_environment() -> Self {
        let only = std::env::var("MEMIT_HOSTILE_ATTACK").ok();
        let seed = std::env::var("MEMIT_HOSTILE_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
        let is_full = std::env::var("MEMIT_HOSTILE").is_ok_and(|how| how == "full");
        let random = || {
            let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            time.as_nanos() as u64 ^ u64::from(std::process::id()) << 40
        };
        let seeds = match seed {
            Some(seed) => vec![seed],
            None if is_full => vec![FIXED, random()],
            None => vec![FIXED],
        };
        let (rounds, window) = if is_full { (3, 100) } else { (1, 40) };
        Self { only, seeds, rounds, window: Duration::from_millis(window), is_measured: is_full }
    }
}

/// Carries out each attack of a family on one victim.
pub fn family(attacks: &[Attack]) {
    let plan = Plan::from_environment();
    let is_wanted = |attack: &&Attack| plan.only.as_ref().is_none_or(|only| attack.name.contains(only.as_str()));
    let wanted: Vec<&Attack> = attacks.iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        return;
    }
    let mut scene = Scene::new();
    for attack in wanted {
        for side in attack.sides {
            for seed in &plan.seeds {
                scene.suffer(attack, *side, *seed, &plan);
            }
        }
    }
}

/// Of rounds, each without the attack and under it, the one in which it made the middle difference: a machine that
/// stumbles in one says nothing of the others.
fn middle(rounds: &[(Times, Times)]) -> Option<&(Times, Times)> {
    let slower = |(calm, attacked): &(Times, Times)| {
        attacked.p99(Time::own).as_secs_f64() / calm.p99(Time::own).as_secs_f64().max(f64::MIN_POSITIVE)
    };
    let mut rounds: Vec<_> = rounds.iter().collect();
    rounds.sort_by(|one, other| slower(one).total_cmp(&slower(other)));
    rounds.get(rounds.len().saturating_sub(1) / 2).copied()
}

struct Scene {
    // First, since it would take the end of the victim for a fault.
    honest: Honest,
    victim: Process,
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let mode = Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().permissions(mode).tempdir().unwrap();
        let mut victim = Process::start("victim", directory.path().to_str().unwrap());
        let bound = victim.hear();
        let honest = Honest::start(&directory, bound.strip_prefix("bound ").unwrap());
        // What is made once is made now.
        victim.tell("busy");
        honest.measure(Duration::from_millis(100));
        victim.tell("rest");
        Self { victim, honest, directory }
    }

    /// One attack from one side, with one seed: in turn some time without it, and some with it.
    fn suffer(&mut self, attack: &Attack, side: Side, seed: u64, plan: &Plan) {
        let what = format!("{} as {side:?}, seed {seed}", attack.name);
        let before = self.settle(None, &what);
        let mut measured = Vec::new();
        let (mut strikes, mut trips, mut ends) = (0, 0, Vec::new());
        for round in 0..plan.rounds {
            self.victim.tell("busy");
            let without = self.honest.measure(plan.window);
            let directory = self.directory.path().to_str().unwrap().to_owned();
            let order = Order { directory, attack: *attack, side, seed: seed.wrapping_add(round as u64) };
            let mut attacker = Process::start("attacker", &order.to_line());
            assert_eq!(self.honest.resting(|| attacker.hear()), "ready", "{what}");
            if side == Side::Main {
                self.victim.tell("connect");
            }
            let under = self.honest.measure(plan.window);
            trips += without.len() + under.len();
            if !without.are_disturbed() && !under.are_disturbed() {
                measured.push((without, under));
            }
            Honest::visit(&self.directory);
            strikes += self.count_strikes(&mut attacker, if round == 0 { attack.forms } else { 1 }, &what);
            drop(attacker);
            self.victim.tell("rest");
            if side == Side::Main {
                assert_eq!(self.victim.ask("disconnect"), "disconnected", "{what}");
            }
        }
        let after = self.settle(Some(&before), &what);
        ends.extend(self.victim.ask("ends").split('\u{1f}').filter(|end| !end.is_empty()).map(str::to_owned));
        self.judge(attack, side, &ends, &what);
        let faults = [self.honest.faults(), vec![self.victim.ask("faults")]].concat();
        assert!(faults.iter().all(String::is_empty), "{what}: {faults:?}");
        if !after.is_sanitized() {
            let grown = after.resident.saturating_sub(before.resident);
            assert!(grown <= KEPT, "{what}: memory has grown by {grown} bytes, {before:?} to {after:?}");
        }
        println!("attack {what}: {strikes} strikes, {} ends, {trips} honest round trips, {}", ends.len(), {
            match middle(&measured) {
                None => "not measured, since other programs have this machine".to_owned(),
                Some((calm, attacked)) => {
                    let both = |of: fn(&Time) -> Duration| {
                        let (calm, attacked) = (calm.p99(of).as_micros(), attacked.p99(of).as_micros());
                        format!("{calm} us without it and {attacked} us under it")
                    };
                    format!("p99 {}, with the time in line for a processor {}", both(Time::own), both(Time::whole))
                }
            }
        });
        if plan.is_measured
            && let Some((calm, attacked)) = middle(&measured)
        {
            let (was, is) = (calm.p99(Time::own), attacked.p99(Time::own));
            assert!(is <= was * SLOWER, "{what}: the p99 of an honest round trip rose from {was:?} to {is:?}");
        }
    }

    /// How often the attacker has struck so far; waits for it to have done so `least` times.
    fn count_strikes(&mut self, attacker: &mut Process, least: usize, what: &str) -> usize {
        let deadline = Instant::now() + DEADLINE;
        self.honest.resting(|| {
            let mut strikes = 0;
            loop {
                assert!(!attacker.has_ended(), "{what}: the attacker has ended, see above");
                match attacker.lines.try_recv() {
                    Ok(line) if line == fuse::IS_MISSING => println!("{line}"),
                    Ok(_) => strikes += 1,
                    Err(_) if strikes >= least => return strikes,
                    Err(_) => thread::park_timeout(Duration::from_millis(1)),
                }
                assert!(Instant::now() < deadline, "{what}: the attacker did not come to strike");
            }
        })
    }

    /// Waits until the victim holds what it held before, and no more.
    fn settle(&mut self, before: Option<&Snapshot>, what: &str) -> Snapshot {
        let deadline = Instant::now() + DEADLINE;
        let victim = &mut self.victim;
        self.honest.resting(|| {
            let mut last = Snapshot::parse(&victim.ask("snapshot"));
            let mut same = 0;
            loop {
                thread::park_timeout(Duration::from_millis(2));
                let now = Snapshot::parse(&victim.ask("snapshot"));
                // Without one to compare with: when arenas are given back, which takes their idle time.
                same = if (now.descriptors, now.maps, now.threads) == (last.descriptors, last.maps, last.threads) {
                    same + 1
                } else {
                    0
                };
                match before {
                    Some(before) if now.is_clean_since(before) => return now,
                    None if same > 40 && now.peers == 2 => return now,
                    _ => last = now,
                }
                if Instant::now() > deadline {
                    panic!("{what}: the victim holds {now:?}, and held {before:?}: {}", victim.ask("maps"));
                }
            }
        })
    }

    /// Whether the reasons that the application was told are those that it should be.
    fn judge(&self, attack: &Attack, side: Side, ends: &[String], what: &str) {
        let violation = |end: &&String| end.contains("broke the protocol");
        let gone = |end: &&String| end.contains("socket is gone") || end.contains("closed its end");
        match attack.verdict {
            Verdict::Punished(texts) => {
                let told = |end: &String| texts.iter().any(|text| end.contains(text));
                let mut violations = ends.iter().filter(violation).peekable();
                assert!(violations.peek().is_some(), "{what}: nobody was told of a violation: {ends:?}");
                assert!(violations.all(told), "{what}: {ends:?}");
            }
            Verdict::Ignored => {
                let other = |end: &&String| !gone(end) && !end.contains("not connected");
                assert_eq!(ends.iter().find(other), None, "{what}");
            }
            Verdict::Refused if side == Side::Renderer => {
                let connected = matches!(attack.act, Act::Greeting(_)) && !ends.is_empty();
                assert!(!connected, "{what}: it was connected: {ends:?}");
            }
            Verdict::Refused => {
                assert!(ends.iter().any(|end| end.contains("not connected")), "{what}: {ends:?}");
                // Who has sent Ready is connected, and finds main gone.
                assert!(ends.iter().all(|end| end.contains("not connected") || gone(&end)), "{what}: {ends:?}");
            }
            Verdict::Either => {}
        }
    }
}
