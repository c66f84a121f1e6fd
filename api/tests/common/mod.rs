//! What the tests with several processes share: children that are the test binary itself, and a deadline for each.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// A test that takes longer than this hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

const ROLE: &str = "MEMIT_TEST_ROLE";

/// Runs `test` on a thread of its own and fails when it does not end in time.
pub fn within_deadline(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(thread::current().name().unwrap_or("test").to_owned())
        .spawn(move || {
            test();
            let _ = done.send(());
        })
        .unwrap();
    match ended.recv_timeout(DEADLINE) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs: it did not end within {DEADLINE:?}"),
    }
}

/// The role that this process was started for, with its argument; `None` in the test itself. A process with a role
/// does not outlive the test that started it.
#[allow(unsafe_code)]
pub fn role() -> Option<(String, String)> {
    let role = std::env::var(ROLE).ok()?;
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let (name, argument) = role.split_once(' ').unwrap_or((&role, ""));
    Some((name.to_owned(), argument.to_owned()))
}

/// A child process that is killed at the latest when the test ends.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts the test `entry` of this binary in a child, which finds `role` by [`role`].
    pub fn start(entry: &str, role: &str, argument: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", entry, "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{role} {argument}"))
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let output: ChildStdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The test harness prints "test NAME ... " in front of what the test prints first.
                let said = line.rsplit_once(SAYS).map(|(_, said)| said.to_owned());
                if said.is_some_and(|said| sender.send(said).is_err()) {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line that the child [said](say); `None` when it has ended.
    pub fn hear(&self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("a child process said nothing for {DEADLINE:?}"),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the child with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the child's own end.
    pub fn succeeds(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SAYS: &str = "child says: ";

/// Tells the test a line, from a child.
pub fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{SAYS}{line}").unwrap();
    out.flush().unwrap();
}
