//! How far the demo is, on standard error: one line that is written over on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use super::report::{grouped, rate};

/// Shows how many of the expected bytes have come.
pub(crate) struct Progress {
    begin: Instant,
    shown: Instant,
    expected: u64,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new(expected: u64) -> Self {
        let now = Instant::now();
        Self { begin: now, shown: now, expected, terminal: io::stderr().is_terminal() }
    }

    /// Shows it, unless that was done a moment ago. It is no fault when standard error cannot be written to.
    pub(crate) fn show(&mut self, lines: u64, bytes: u64) {
        let every = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(5) };
        let now = Instant::now();
        if now.duration_since(self.shown) < every {
            return;
        }
        self.shown = now;
        let text = line(lines, bytes, self.expected, now.duration_since(self.begin));
        let mut stderr = io::stderr().lock();
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{text}") } else { writeln!(stderr, "{text}") };
    }
}

impl Drop for Progress {
    /// Leaves an empty line on a terminal, for whatever comes next.
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(lines: u64, bytes: u64, expected: u64, elapsed: Duration) -> String {
    // A file that grows while it is read must not show more than all of it.
    let percent = (bytes.saturating_mul(100) / expected.max(1)).min(100);
    let megabytes = rate(bytes, elapsed) / 1_000_000;
    format!("{percent:3} %  {} lines  {} MB/s", grouped(lines), grouped(megabytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_share_lines_and_speed() {
        assert_eq!(line(12_000, 30_000_000, 60_000_000, Duration::from_secs(2)), " 50 %  12,000 lines  15 MB/s");
        assert_eq!(line(1, 10, 0, Duration::ZERO), "100 %  1 lines  0 MB/s");
    }
}
