//! Heats: all candidates that can do some work take turns in short segments, so that what the machine does meanwhile
//! falls on all of them.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::lineup::Entry;
use super::player::HOST;
use super::session::Look;
use super::{Wait, Work};
use crate::Result;
use crate::ratio::{Medians, Ratios};

/// After so long without a word, a pair hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where named shared memory is.
const NAMED: &str = "/dev/shm";
const DIRECTORIES: &str = "memit-compare-";
/// Short, as the other names: iceoryx2 makes paths of sockets with them, which have at most 107 bytes.
const NAMES: &str = "memit_cmp_";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Segments of each candidate that are compared with the probe.
    pub compared: usize,
    /// Segments of each candidate whose rounds are timed one by one.
    pub timed: usize,
    /// How long a segment is to take.
    pub segment: Duration,
}

/// What all candidates of a heat do.
#[derive(Clone, Copy, Debug)]
pub struct Heat {
    /// What they do.
    pub work: Work,
    /// How they wait.
    pub wait: Wait,
    /// Bytes of a message.
    pub len: usize,
}

/// What came of a candidate in a heat.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The heat.
    pub heat: Heat,
    /// Its figures, or why there are none.
    pub outcome: std::result::Result<Figures, String>,
}

/// Figures of a candidate.
#[derive(Debug)]
pub struct Figures {
    /// Messages or round trips of all segments that counted.
    pub rounds: u64,
    /// Segments that counted.
    pub counted: usize,
    /// Segments that were dropped, because the probes around them disagreed.
    pub dropped: usize,
    /// Medians of the segments that counted.
    pub medians: Medians,
    /// Quantiles of the rounds that were timed: the part of them, and the nanoseconds that it took at most.
    pub times: Vec<(f64, u64)>,
}

/// Holds heats, and sees to it that nothing of them is left.
#[derive(Debug)]
pub struct Contest {
    directory: TempDir,
    names: String,
    pairs: usize,
}

impl Contest {
    /// Makes a directory for the pairs. What contests that were killed left behind is removed first.
    pub fn new() -> Result<Self> {
        sweep()?;
        let pid = std::process::id();
        let directory = tempfile::Builder::new()
            .prefix(&format!("{DIRECTORIES}{pid}-"))
            .rand_bytes(3)
            .permissions(Permissions::from_mode(0o700))
            .tempdir()?;
        Ok(Self { directory, names: format!("{NAMES}{pid}_"), pairs: 0 })
    }

    /// Holds a heat; `told` hears how far it is.
    pub fn hold(&mut self, heat: Heat, entries: &[Entry], plan: Plan, told: &mut dyn FnMut(&str)) -> Result<Vec<Row>> {
        let mut turns = Vec::new();
        for entry in entries.iter().filter(|entry| entry.does(heat.work, heat.wait)) {
            told(&format!("{} starts", entry.name));
            turns.push((entry.name, self.start(entry, heat).and_then(|pair| Turns::new(pair, heat.len, plan))));
        }
        for (look, segments) in [(Look::Plain, plan.compared), (Look::Timed, plan.timed)] {
            for segment in 0..segments {
                told(&format!("{} segment {} of {segments}", look.name(), segment + 1));
                for (_, turns) in &mut turns {
                    let Ok(running) = turns else { continue };
                    if let Err(error) = running.segment(look) {
                        *turns = Err(error);
                    }
                }
            }
        }
        let rows = turns.into_iter().map(|(name, turns)| {
            let outcome = turns.and_then(Turns::figures).map_err(|error| error.to_string());
            Row { name: name.to_owned(), heat, outcome }
        });
        let rows = rows.collect();
        remove_named(&self.names)?;
        Ok(rows)
    }

    fn start(&mut self, entry: &Entry, heat: Heat) -> Result<Pair> {
        self.pairs += 1;
        let directory = self.directory.path().join(self.pairs.to_string());
        DirBuilder::new().mode(0o700).create(&directory)?;
        Pair::start(entry, heat, directory, &format!("{}{}_", self.names, self.pairs))
    }
}

impl Drop for Contest {
    fn drop(&mut self) {
        // It is as good as can be done; the next contest tries again.
        let _ = remove_named(&self.names);
    }
}

/// Removes what contests of processes that are no more have left.
fn sweep() -> Result<()> {
    let alive = |pid: &str| Path::new("/proc").join(pid).exists();
    for (directory, prefix, end) in [(std::env::temp_dir(), DIRECTORIES, '-'), (NAMED.into(), NAMES, '_')] {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Some((pid, _)) = name.strip_prefix(prefix).and_then(|rest| rest.split_once(end)) else { continue };
            if pid.parse::<u32>().is_ok() && !alive(pid) {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// Removes the named memory of this contest.
fn remove_named(names: &str) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(NAMED) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(names) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A host and, through it, a guest. Both end when it is dropped.
struct Pair {
    host: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
    directory: PathBuf,
}

impl Pair {
    fn start(entry: &Entry, heat: Heat, directory: PathBuf, prefix: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(HOST).arg(entry.name).arg(std::process::id().to_string());
        command.args([heat.wait.name(), heat.work.name(), &heat.len.to_string()]).arg(&directory).arg(prefix);
        // Some make sockets in the directory for temporary files.
        command.env("TMPDIR", &directory);
        let mut host = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (orders, said) = (host.stdin.take(), host.stdout.take());
        let (heard, answers) = channel();
        let pair = Self { host, orders, answers, directory };
        let said = BufReader::new(said.ok_or("the host has no standard output")?);
        // It ends with the host.
        thread::Builder::new().name("compare-host".into()).spawn(move || {
            for line in said.lines().map_while(io::Result::ok) {
                if heard.send(line).is_err() {
                    return;
                }
            }
        })?;
        match pair.answer()?.as_str() {
            "ready" => Ok(pair),
            other => Err(format!("the host said `{other}` instead of `ready`").into()),
        }
    }

    fn answer(&self) -> Result<String> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => match line.strip_prefix("failed ") {
                Some(why) => Err(why.into()),
                None => Ok(line),
            },
            Err(RecvTimeoutError::Timeout) => Err(format!("it said nothing for {PATIENCE:?}").into()),
            Err(RecvTimeoutError::Disconnected) => Err("its host ended".into()),
        }
    }

    fn ask(&mut self, order: &str) -> Result<String> {
        let orders = self.orders.as_mut().ok_or("the host has no standard input")?;
        if let Err(error) = writeln!(orders, "{order}") {
            // It may have said why it ended.
            return self.answer().and_then(|_| Err(error.into()));
        }
        self.answer()
    }

    /// A segment: nanoseconds of the probe before, of the whole segment, and of the probe after.
    fn segment(&mut self, look: Look, rounds: u64) -> Result<[f64; 3]> {
        let answer = self.ask(&format!("{} {rounds}", look.name()))?;
        let figures = answer.strip_prefix("done ").map(|figures| figures.split(' ').map(str::parse::<f64>));
        let figures: std::result::Result<Vec<f64>, _> = figures.into_iter().flatten().collect();
        figures?.try_into().map_err(|_| format!("the host said `{answer}` instead of `done` and three numbers").into())
    }

    fn times(&mut self) -> Result<Vec<(f64, u64)>> {
        let answer = self.ask("times")?;
        let times = answer.split(' ').skip(1).filter_map(|time| time.split_once('='));
        times.map(|(quantile, took)| Ok((quantile.parse()?, took.parse()?))).collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // A host ends when nobody has orders for it any more, unless something has gone wrong. Its guest ends with it.
        self.orders = None;
        let ended = loop {
            match self.answers.recv_timeout(Duration::from_secs(2)) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => break false,
                Err(RecvTimeoutError::Disconnected) => break true,
            }
        };
        if !ended {
            let _ = self.host.kill();
        }
        let _ = self.host.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A pair, and what its segments have come to.
struct Turns {
    pair: Pair,
    rounds: u64,
    ratios: Ratios,
    plan: Plan,
}

impl Turns {
    /// Has the pair exchange messages of which each byte is looked at, and finds out how many rounds make a segment.
    fn new(mut pair: Pair, len: usize, plan: Plan) -> Result<Self> {
        const BYTES: usize = 16 << 20;
        const FEWEST: u64 = 10;
        const MOST: u64 = 100_000;
        let whole = (BYTES / len).clamp(16, 200) as u64;
        pair.segment(Look::Whole, whole)?;
        // The fastest of three: the others were disturbed, or found nothing in the caches.
        let mut took = f64::INFINITY;
        for _ in 0..3 {
            took = pair.segment(Look::Plain, whole)?[1].min(took);
        }
        let rounds = plan.segment.as_secs_f64() * 1e9 / took.max(1.0) * whole as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is cut to what is sensible")]
        let rounds = (rounds as u64).clamp(FEWEST, MOST);
        Ok(Self { pair, rounds, ratios: Ratios::default(), plan })
    }

    #[allow(clippy::cast_precision_loss, reason = "rounds are far below 2^52")]
    fn segment(&mut self, look: Look) -> Result<()> {
        let [before, took, after] = self.pair.segment(look, self.rounds)?;
        if look == Look::Plain {
            self.ratios.add(before, took / self.rounds as f64, after);
        }
        Ok(())
    }

    fn figures(mut self) -> Result<Figures> {
        let times = if self.plan.timed > 0 { self.pair.times()? } else { Vec::new() };
        let medians = self.ratios.medians().ok_or("every segment was dropped: the machine is too unsteady")?;
        let (counted, dropped) = self.ratios.counts();
        Ok(Figures { rounds: self.rounds * counted as u64, counted, dropped, medians, times })
    }
}

/// The names of the candidates that rows are about, once each, in their order.
#[must_use]
pub fn names(rows: &[Row]) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    rows.iter().map(|row| row.name.as_str()).filter(|name| seen.insert(*name)).collect()
}
