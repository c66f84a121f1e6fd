//! What a process has open and mapped, and what lies in a runtime directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::AT_ONCE;

/// Descriptors by what they are of, shared mappings by name, and bytes of shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    descriptors: BTreeMap<String, usize>,
    maps: BTreeMap<String, usize>,
    shared_kib: u64,
}

impl Leftovers {
    pub fn now() -> Self {
        Self { descriptors: descriptors(), maps: maps(), shared_kib: shared_kib() }
    }

    /// As it will be once the library's thread runs, which stays for as long as the process.
    pub fn with_library_thread(mut self) -> Self {
        for kept in ["anon_inode:[eventpoll]", "anon_inode:[eventfd]"] {
            *self.descriptors.entry(kept.to_owned()).or_default() += 1;
        }
        self
    }

    /// Waits until the process is as it was. Threads that have nothing more to say may be closing things still.
    pub fn assert_back(&self) {
        let deadline = Instant::now() + AT_ONCE;
        loop {
            let now = Self::now();
            if now == *self {
                return;
            }
            assert!(Instant::now() < deadline, "something is left: {now:#?}\nbefore: {self:#?}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn descriptors() -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        // The one that lists them is gone by now.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        // Numbers of single sockets, pipes and processes are left out.
        let kind = target.split_once(":[").filter(|_| !target.starts_with("anon_inode")).map(|(kind, _)| kind.to_owned());
        *kinds.entry(kind.unwrap_or(target)).or_default() += 1;
    }
    kinds
}

/// Shared mappings, and private ones of memory files, which sealed payloads are.
fn maps() -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut fields = line.split_whitespace();
        let permissions = fields.nth(1).unwrap();
        let name = fields.skip(3).collect::<Vec<_>>().join(" ");
        if permissions.ends_with('s') || name.contains("memfd:") {
            *names.entry(name).or_default() += 1;
        }
    }
    names
}

/// This process's share of the shared memory that it has mapped.
fn shared_kib() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Shmem:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The names in a directory, sorted.
pub fn files(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(dir)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
