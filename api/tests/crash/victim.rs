//! A child process that is killed, by the test or at a crash point.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::ledger::Ledger;

/// A child of this test. It is killed at the latest when this is dropped.
pub struct Victim {
    child: Child,
    lines: Receiver<String>,
    pidfd: OwnedFd,
}

impl Victim {
    /// Starts a child in `role`, with `crash` as its plan, if any.
    pub fn start(role: &str, dir: &str, ledger: &Ledger, crash: Option<(&str, u64)>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
            .env("MEMIT_TEST_ROLE", format!("{role} {dir}"))
            .envs([ledger.variable()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some((point, nth)) = crash {
            command.env("MEMIT_CRASH", format!("{point}:{nth}"));
        }
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, said)) = line.rsplit_once("child says: ") {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        Self { child, lines, pidfd }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The next line that it says; `None` once it has ended.
    pub fn hear(&self, within: Duration) -> Option<String> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("a child said nothing for {within:?}"),
        }
    }

    /// Kills it, unless it has ended.
    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    /// Waits for its own end; `None` if it does not come in time.
    pub fn ends(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
            match poll(&mut [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)], Some(&left)) {
                Ok(0) => return None,
                Ok(_) => return Some(self.child.wait().unwrap()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("cannot wait for a child: {error}"),
            }
        }
    }
}

/// Whether it ended by SIGKILL.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
