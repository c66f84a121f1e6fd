//! What the benches share: how long they measure, and two ends of a connection in one process.
#![allow(dead_code, unreachable_pub, reason = "each bench uses a part of it")]

pub mod ports;

use std::time::Duration;

use criterion::Criterion;
use memit::{IpcMain, IpcRenderer, WaitStrategy};
use memit_benches::machine::pin;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

/// Longer than anything takes that comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the measurements that the command line asks for. Each takes 3 s, unless the command line says otherwise.
pub fn run(measurements: &[fn(&mut Criterion)]) {
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    let mut criterion = criterion.configure_from_args();
    measurements.iter().for_each(|measure| measure(&mut criterion));
    criterion.final_summary();
}

/// The calling thread on the first core, until this is dropped.
pub struct Pinned(CpuSet);

impl Pinned {
    pub fn here() -> Self {
        let before = sched_getaffinity(None).unwrap();
        pin(0).unwrap();
        Self(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.0).unwrap();
    }
}

/// A main and a renderer that this process is both of.
pub struct Pair {
    pub main: IpcMain,
    pub renderer: IpcRenderer,
    _directory: TempDir,
}

impl Pair {
    pub fn new(wait: WaitStrategy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        let main = IpcMain::builder().runtime_dir(&run).wait(wait).bind("app").unwrap();
        let renderer = IpcRenderer::builder().runtime_dir(&run).wait(wait).connect("app").unwrap();
        assert_eq!(main.run_once(PATIENCE).unwrap(), 1, "the renderer arrives");
        Self { main, renderer, _directory: directory }
    }

    /// Has main take in `messages` that were sent.
    pub fn receive(&self, messages: u64) {
        let mut taken = 0;
        while taken < messages {
            taken += self.main.poll().unwrap() as u64;
        }
    }
}
