//! What a process has open and mapped, and what lies in a runtime directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::AT_ONCE;

/// Descriptors by what they are of, shared mappings by name, and how much shared memory that is.
#[derive(Clone, Debug)]
pub struct Leftovers {
    descriptors: BTreeMap<String, usize>,
    maps: BTreeMap<String, usize>,
    shared_kib: u64,
}

impl Leftovers {
    pub fn now() -> Self {
        let (maps, shared_kib) = mapped();
        Self { descriptors: descriptors(), maps, shared_kib }
    }

    /// As it will be once the library's thread runs, which stays for as long as the process.
    pub fn with_library_thread(mut self) -> Self {
        for kept in ["anon_inode:[eventpoll]", "anon_inode:[eventfd]"] {
            *self.descriptors.entry(kept.to_owned()).or_default() += 1;
        }
        self
    }

    /// Waits until the process has no more than it had. Threads that have nothing more to say may be closing things
    /// still, and no descriptor tells when one is closed: only to look again does. They may have been when what it had
    /// was looked at, too: then it comes to have less.
    pub fn assert_back(&self) {
        let deadline = Instant::now() + AT_ONCE;
        loop {
            let now = Self::now();
            if now.is_within(self) {
                return;
            }
            assert!(Instant::now() < deadline, "something is left: {now:#?}\nbefore: {self:#?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_within(&self, before: &Self) -> bool {
        let within = |now: &BTreeMap<String, usize>, before: &BTreeMap<String, usize>| {
            now.iter().all(|(kind, count)| before.get(kind).is_some_and(|had| count <= had))
        };
        within(&self.descriptors, &before.descriptors)
            && within(&self.maps, &before.maps)
            && self.shared_kib <= before.shared_kib
    }
}

fn descriptors() -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        // The one that lists them is gone by now.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        // Numbers of single sockets, pipes and processes are left out.
        let kind =
            target.split_once(":[").filter(|_| !target.starts_with("anon_inode")).map(|(kind, _)| kind.to_owned());
        *kinds.entry(kind.unwrap_or(target)).or_default() += 1;
    }
    kinds
}

/// The shared mappings, and private ones of memory files, which sealed payloads are; how many KiB of them are present.
/// The ledger's comes and goes with the test's own use of it.
fn mapped() -> (BTreeMap<String, usize>, u64) {
    let (mut names, mut present, mut counts) = (BTreeMap::new(), 0, false);
    for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            // Address, permissions, offset, device, file number, name: the head of what follows.
            [address, permissions, _, _, _, ..] if address.contains('-') => {
                let name = fields[5..].join(" ");
                counts = permissions.ends_with('s') || name.contains("memfd:");
                if counts {
                    *names.entry(name.clone()).or_default() += 1;
                }
                counts &= !name.contains("memfd:ledger");
            }
            ["Rss:", kib, "kB"] if counts => present += kib.parse::<u64>().unwrap(),
            _ => {}
        }
    }
    (names, present)
}

/// The names in a directory, sorted.
pub fn files(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(dir)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
