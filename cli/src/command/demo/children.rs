//! The renderer processes: this binary, once more, with a hidden command.

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
};

/// The renderer processes, each with a thread that waits for its end. They end by themselves once their main is gone,
/// whatever ended it.
pub(crate) struct Children(Vec<JoinHandle<()>>);

impl Children {
    /// Starts a renderer process for each number in `1..=count`. `started` hears of each with its pid; `ended`, on
    /// another thread, with what was wrong about its end, if anything.
    pub(crate) fn start(
        count: u32,
        runtime_dir: &Path,
        arguments: impl Fn(u32) -> Vec<OsString>,
        mut started: impl FnMut(u32, u32),
        ended: impl Fn(u32, Option<String>) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let mut waiting = Vec::new();
        for number in 1..=count {
            // Not the path of the binary, which may have been replaced since this process began.
            let mut child = Command::new("/proc/self/exe")
                .arg0("memit")
                .args(arguments(number))
                .env("MEMIT_RUNTIME_DIR", runtime_dir)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()?;
            started(number, child.id());
            let ended = ended.clone();
            waiting.push(thread::Builder::new().name(format!("renderer {number}")).spawn(move || {
                ended(number, fault(&mut child));
            })?);
        }
        Ok(Self(waiting))
    }

    /// Waits until every process has ended and `ended` has heard of it.
    pub(crate) fn wait(self) {
        for thread in self.0 {
            // A panic there has been printed; what it left undone shows as a renderer without a report.
            let _ = thread.join();
        }
    }
}

/// Waits for `child`; says how it ended, unless it ended well.
fn fault(child: &mut Child) -> Option<String> {
    match child.wait() {
        Ok(status) => describe(status),
        Err(error) => Some(format!("cannot be waited for: {error}")),
    }
}

fn describe(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("ended with exit code {code}; it says why on standard error")),
        (None, Some(signal)) => Some(format!("was killed by signal {signal}")),
        (None, None) => Some(format!("ended: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_told_in_words() {
        assert_eq!(describe(ExitStatus::from_raw(0)), None);
        assert_eq!(
            describe(ExitStatus::from_raw(2 << 8)).as_deref(),
            Some("ended with exit code 2; it says why on standard error")
        );
        assert_eq!(describe(ExitStatus::from_raw(9)).as_deref(), Some("was killed by signal 9"));
    }
}
