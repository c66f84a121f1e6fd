//! CPU time of a process, this one or another.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// The clock of the CPU time that all threads of one process use.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// That of the process `pid`.
    pub fn of(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
        let mut clock = 0;
        // SAFETY: writes the clock's number, and nothing else.
        match unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } {
            0 => Ok(Self(clock)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// How much it shows.
    pub fn now(self) -> io::Result<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes the time, and nothing else.
        if unsafe { libc::clock_gettime(self.0, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
        Ok(Duration::new(seconds, u32::try_from(time.tv_nsec).map_err(io::Error::other)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_shows_on_its_clock() {
        let clock = CpuClock::of(std::process::id()).unwrap();
        let before = clock.now().unwrap();
        while clock.now().unwrap() < before + Duration::from_millis(5) {}
    }

    #[test]
    fn a_process_that_is_not_there_has_no_clock() {
        assert!(CpuClock::of(4_194_305).is_err());
    }
}
