//! What a process holds of the system, as /proc tells it.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

/// Time within which what has ended is given back: the library's thread does some of that, and it may be busy. Less than
/// it takes to be found hanging, so that it is told what is not given back.
const GIVEN_BACK: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) descriptors: u64,
    pub(crate) maps: u64,
    /// Of the maps, those of memit's shared memory.
    pub(crate) shared_maps: u64,
    /// Bytes.
    pub(crate) resident: u64,
    /// Bytes, of the resident ones.
    pub(crate) shared: u64,
}

impl Held {
    /// By this process.
    pub(crate) fn now() -> io::Result<Self> {
        Self::by("self")
    }

    /// By the process with that id.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        Self::by(&pid.to_string())
    }

    fn by(process: &str) -> io::Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
        };
        Ok(Self {
            descriptors: fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64,
            maps: maps.lines().count() as u64,
            shared_maps: maps.lines().filter(|line| line.contains("memfd:memit")).count() as u64,
            resident: kilobytes("VmRSS:"),
            shared: kilobytes("RssShmem:"),
        })
    }

    /// Waits until this process holds no more descriptors than these and no shared memory beyond these; says what it
    /// still holds if that does not come about.
    pub(crate) fn comes_back(&self, tell: impl FnOnce(String)) -> io::Result<()> {
        let deadline = Instant::now() + GIVEN_BACK;
        loop {
            let now = Self::now()?;
            if now.descriptors <= self.descriptors && now.shared_maps <= self.shared_maps {
                return Ok(());
            }
            if Instant::now() > deadline {
                tell(format!(
                    "{} descriptors are open and {} maps of shared memory are there; it began with {} and {}",
                    now.descriptors, now.shared_maps, self.descriptors, self.shared_maps
                ));
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_what_it_opens() {
        let before = Held::now().unwrap();
        assert!(before.maps > 0 && before.resident > 0 && before.descriptors > 0);
        // Other tests open and close files meanwhile, but not so many.
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(Held::now().unwrap().descriptors > before.descriptors + 100);
        drop(files);
    }
}
