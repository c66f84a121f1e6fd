//! Running this program under callgrind, and what comes of it.

use std::error::Error;
use std::hint::black_box;
use std::process::Command;
use std::{env, fs};

use crate::baseline::Count;
use crate::dump::Dump;
use crate::parts::Parts;

/// The first argument of the program that runs under valgrind.
pub(crate) const COUNTED: &str = "--counted";

/// Callgrind collects while this runs, on the thread that runs it. It knows this function and the next two by name.
#[inline(never)]
pub(crate) fn callgrind_collects_here(work: &mut dyn FnMut()) {
    work();
    // So that the call above is none that this function ends with.
    black_box(0);
}

/// What was collected so far is forgotten.
#[inline(never)]
pub(crate) fn callgrind_begins_here() {
    black_box(1);
}

/// What was collected since the beginning is written down.
#[inline(never)]
pub(crate) fn callgrind_ends_here() {
    black_box(2);
}

/// Passes that are counted: this many, twice and three times as many.
pub(crate) const MULTIPLES: [u64; 3] = [1, 2, 3];

/// One path.
pub(crate) trait Passes {
    /// Makes `times` passes possible. Not counted.
    fn prepare(&mut self, times: u64) -> Result<(), Box<dyn Error>> {
        let _ = times;
        Ok(())
    }

    /// What is counted.
    fn pass(&mut self, times: u64);

    /// Whether `times` passes were made since the last check, by what they brought about.
    fn check(&mut self, times: u64) -> Result<(), Box<dyn Error>>;
}

/// Does a path as often as it takes to count it. Only the program under valgrind calls this.
pub(crate) fn run(name: &str, once: u64, path: &mut dyn Passes) -> Result<(), Box<dyn Error>> {
    let failed = |error| format!("{name}: {error}");
    path.prepare(once).map_err(failed)?;
    path.pass(once);
    path.check(once).map_err(failed)?;
    for times in MULTIPLES.map(|multiple| multiple * once) {
        path.prepare(times).map_err(failed)?;
        callgrind_collects_here(&mut || {
            callgrind_begins_here();
            path.pass(times);
            callgrind_ends_here();
        });
        path.check(times).map_err(failed)?;
        say(name, times);
    }
    Ok(())
}

/// Tells the program that started this one what was counted last.
pub(crate) fn say(name: &str, times: u64) {
    println!("{name} {times}");
}

/// Paths that are counted by the same rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// What one thread does alone.
    Local,
    /// What a caller does, without its wait for the answer.
    Caller,
    /// What the dispatching thread does with a call, without its wait for the next.
    Answerer,
}

impl Family {
    pub(crate) const ALL: [Self; 3] = [Self::Local, Self::Caller, Self::Answerer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Caller => "caller",
            Self::Answerer => "answerer",
        }
    }

    /// The function that the counted thread waits in. Callgrind stops counting while it runs: for how long a thread
    /// spins until another one has run is not a property of the program.
    fn not_counted(self) -> Option<&'static str> {
        match self {
            Self::Local => None,
            Self::Caller => Some("*link::Link>::wait"),
            Self::Answerer => Some("*dispatch::Dispatch>::wait"),
        }
    }
}

/// Counts all paths.
pub(crate) fn count() -> Result<Vec<Count>, Box<dyn Error>> {
    each_path(per_pass)
}

/// Counts all paths, and where the instructions of each are spent.
pub(crate) fn parts() -> Result<Vec<Parts>, Box<dyn Error>> {
    let program = env::current_exe()?;
    each_path(|passes| Parts::new(&program, passes))
}

fn each_path<T>(found: impl Fn(&PathPasses) -> Result<T, Box<dyn Error>>) -> Result<Vec<T>, Box<dyn Error>> {
    let mut each = Vec::new();
    for family in Family::ALL {
        let passes = count_family(family)?;
        let (paths, []) = passes.as_chunks() else { return Err("a path was not counted to its end".into()) };
        for path in paths {
            each.push(found(path)?);
        }
    }
    Ok(each)
}

fn count_family(family: Family) -> Result<Vec<Pass>, Box<dyn Error>> {
    let directory = tempfile::Builder::new().prefix("memit-instructions-").tempdir()?;
    let dump = directory.path().join("dump");
    let mut valgrind = Command::new("valgrind");
    // A small environment that is the same everywhere, and the C library's plain copies, which every processor has.
    valgrind.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("GLIBC_TUNABLES", PLAIN_COPIES);
    valgrind.args(["--tool=callgrind", "--quiet", "--collect-atstart=no", "--dump-instr=yes"]);
    valgrind.arg("--toggle-collect=*callgrind_collects_here");
    valgrind.args(["--zero-before=*callgrind_begins_here", "--dump-before=*callgrind_ends_here"]);
    if let Some(wait) = family.not_counted() {
        valgrind.arg(format!("--toggle-collect={wait}"));
    }
    valgrind.arg(format!("--callgrind-out-file={}", dump.display()));
    valgrind.arg(env::current_exe()?).args([COUNTED, family.name()]).arg(directory.path());
    let output =
        valgrind.output().map_err(|error| format!("valgrind did not start: {error}; install it and put it on PATH"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the {} paths ended with {} under valgrind:\n{said}", family.name(), output.status).into());
    }
    let done = String::from_utf8(output.stdout)?;
    let mut passes = Vec::new();
    for (index, line) in done.lines().enumerate() {
        let (name, times) = line.split_once(' ').ok_or("the counted program said something else than a path")?;
        let dump = dump.with_extension((index + 1).to_string());
        let text = fs::read_to_string(&dump);
        let text = text.map_err(|error| format!("callgrind wrote no {}: {error}", dump.display()))?;
        passes.push(Pass { name: name.to_owned(), times: times.parse()?, dump: Dump::new(text)? });
    }
    Ok(passes)
}

/// For glibc from 2.26 on, by the names that its versions know; others are ignored.
const PLAIN_COPIES: &str = "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2_Usable,-AVX512F_Usable,-AVX2,-AVX512F,\
                            -AVX512VL,-AVX512BW,-ERMS,-FSRM";

/// What callgrind counted in one go.
#[derive(Debug)]
pub(crate) struct Pass {
    name: String,
    pub(crate) times: u64,
    pub(crate) dump: Dump,
}

/// Each of the [`MULTIPLES`].
pub(crate) type PathPasses = [Pass; MULTIPLES.len()];

/// What one pass takes, from the passes of one path.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn per_pass([first, second, third]: &PathPasses) -> Result<Count, Box<dyn Error>> {
    let between =
        |less: &Pass, more: &Pass| (more.dump.total as f64 - less.dump.total as f64) / (more.times - less.times) as f64;
    let (early, late) = (between(first, second), between(second, third));
    if (early - late).abs() > STEADY * late || late < 1.0 {
        let name = &first.name;
        return Err(format!(
            "{name} took {early:.1} instructions, and then {late:.1}: a path to be counted takes the same each time. \
             Is there a wait in it, or a function that callgrind knows by another name now (see Family::not_counted)?"
        )
        .into());
    }
    Ok(Count { path: first.name.clone(), instructions: between(first, third) })
}

/// How much the counts of one path may differ from another.
const STEADY: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(totals: [u64; 3]) -> [Pass; 3] {
        let mut times = 0;
        totals.map(|total| {
            times += 100;
            let dump = Dump::new(format!("totals: {total}\n")).unwrap();
            Pass { name: "path".to_owned(), times, dump }
        })
    }

    #[test]
    fn what_comes_once_does_not_count() {
        let count = per_pass(&passes([5_700, 10_700, 15_700])).unwrap();
        assert_eq!((count.path.as_str(), count.instructions), ("path", 50.0));
    }

    #[test]
    fn a_path_that_takes_another_number_each_time_is_refused() {
        let refused = per_pass(&passes([5_700, 10_700, 15_800])).unwrap_err().to_string();
        assert!(refused.contains("took 50.0 instructions, and then 51.0"), "{refused}");
        assert!(per_pass(&passes([700, 700, 700])).is_err(), "nothing was counted");
    }
}
