//! The machine: cores to pin to, and what a report says of it.

use std::{fs, io};

use rustix::system::uname;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Pins the calling thread to the `nth` core that the process may use.
pub fn pin(nth: usize) -> io::Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let core = numbers(&allowed).get(nth).copied().ok_or_else(|| {
        io::Error::other(format!("this measurement needs {} cores, and only {} may be used", nth + 1, allowed.count()))
    })?;
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only)?;
    Ok(core)
}

/// The numbers of the cores in `set`.
#[must_use]
pub fn numbers(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Runs `start`, which starts a process, as a thread that may use every core that `cores` names, and pins it again: a
/// child has the cores of who starts it.
pub fn unpinned<T>(cores: &CpuSet, start: impl FnOnce() -> T) -> io::Result<T> {
    let pinned = sched_getaffinity(None)?;
    sched_setaffinity(None, cores)?;
    let started = start();
    sched_setaffinity(None, &pinned)?;
    Ok(started)
}

/// The cores that the calling thread may use.
pub fn cores() -> io::Result<CpuSet> {
    Ok(sched_getaffinity(None)?)
}

/// Processor, kernel, and the compiler and commit that this program was built with, a line each.
pub fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpu.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, value)| value)
            .to_owned()
    };
    let kernel = uname();
    format!(
        "processor  {} (family {}, model {})\nkernel     {} {}\ncompiler   {}\ncommit     {}",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        kernel.sysname().to_string_lossy(),
        kernel.release().to_string_lossy(),
        env!("MEMIT_BENCH_COMPILER"),
        env!("MEMIT_BENCH_COMMIT"),
    )
}
