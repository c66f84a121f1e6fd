//! What a process holds: descriptors, maps, threads, memory.

use std::fs;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub peers: usize,
    pub descriptors: usize,
    /// Maps of memory that is shared with others.
    pub maps: usize,
    pub threads: usize,
    /// Bytes of memory, shared and not.
    pub resident: usize,
    /// Bytes of addresses.
    pub addresses: usize,
}

impl Snapshot {
    /// Of this process.
    pub fn take(peers: usize) -> Self {
        let count = |path: &str| fs::read_dir(path).unwrap().count();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
        };
        Self {
            peers,
            descriptors: count("/proc/self/fd"),
            maps: Self::maps().len(),
            threads: count("/proc/self/task"),
            resident: bytes("VmRSS:"),
            addresses: bytes("VmSize:"),
        }
    }

    /// The maps of memory that is shared, as the kernel shows them.
    pub fn maps() -> Vec<String> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("/memfd:")).map(str::to_owned).collect()
    }

    pub fn to_line(self) -> String {
        let Self { peers, descriptors, maps, threads, resident, addresses } = self;
        format!("{peers} {descriptors} {maps} {threads} {resident} {addresses}")
    }

    pub fn parse(line: &str) -> Self {
        let numbers: Vec<usize> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [peers, descriptors, maps, threads, resident, addresses] = numbers[..] else { panic!("{line}") };
        Self { peers, descriptors, maps, threads, resident, addresses }
    }

    /// Whether nothing is held that was not held `before`. Memory apart: an allocator keeps some.
    pub fn is_clean_since(&self, before: &Self) -> bool {
        self.peers == before.peers
            && self.descriptors <= before.descriptors
            && self.maps <= before.maps
            && self.threads <= before.threads
    }

    /// Whether a sanitizer keeps what is freed, so that the memory in use says nothing: it reserves terabytes of addresses.
    pub fn is_sanitized(&self) -> bool {
        self.addresses > 1 << 42
    }
}
