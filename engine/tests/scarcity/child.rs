//! Processes that run short of something, started by the test program as itself, and what they and the test say to each
//! other.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use crate::common::DEADLINE;

const ROLE: &str = "MEMIT_SCARCITY_ROLE";
const DIR: &str = "MEMIT_SCARCITY_DIR";
/// Begins what a child says, behind which the test harness may have left the beginning of a line.
const SAYS: &str = "child says: ";

/// A child; it does not outlive the test.
pub struct Short {
    role: String,
    process: Child,
    stdin: ChildStdin,
    says: Receiver<String>,
}

/// This program as a child that will play `role` in `dir`.
pub fn command(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

impl Short {
    pub fn start(role: &str, dir: &Path) -> Self {
        Self::spawn(role, command(role, dir)).unwrap()
    }

    pub fn spawn(role: &str, mut command: Command) -> std::io::Result<Self> {
        let mut process = command.spawn()?;
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, says) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((_, said)) = line.rsplit_once(SAYS) {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        Ok(Self { role: role.to_owned(), process, stdin, says })
    }

    /// What it says next.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        match self.says.recv_timeout(DEADLINE) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => panic!("{} says nothing for {DEADLINE:?}", self.role),
            Err(RecvTimeoutError::Disconnected) => panic!("{} has ended: {:?}", self.role, self.process.wait()),
        }
    }

    #[track_caller]
    pub fn expect(&mut self, said: &str) {
        assert_eq!(self.hear(), said, "what {} says", self.role);
    }

    /// Tells it something, and waits until it says that it has done so.
    #[track_caller]
    pub fn order(&mut self, what: &str) {
        writeln!(self.stdin, "{what}").unwrap();
        self.expect(what);
    }

    /// Waits for its own end, which must be a success.
    #[track_caller]
    pub fn ends(mut self) {
        match self.says.recv_timeout(DEADLINE) {
            Err(RecvTimeoutError::Disconnected) => {}
            Ok(said) => panic!("{} says more: {said}", self.role),
            Err(RecvTimeoutError::Timeout) => panic!("{} does not end", self.role),
        }
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{}: {status}", self.role);
    }

    /// Tells it to end, and sees that it does.
    #[track_caller]
    pub fn end(mut self) {
        writeln!(self.stdin, "end").unwrap();
        self.ends();
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `role` in a child from its beginning to its end.
#[track_caller]
pub fn run(role: &str, dir: &Path) {
    Short::start(role, dir).ends();
}

/// In a child: what to play, and where.
#[allow(unsafe_code)]
pub fn role() -> Option<(String, PathBuf)> {
    let role = std::env::var(ROLE).ok()?;
    // SAFETY: takes numbers only. The child does not outlive the thread that started it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    Some((role, std::env::var_os(DIR).unwrap().into()))
}

/// In a child: says a line to the test.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{SAYS}{line}").unwrap();
    out.flush().unwrap();
}

/// In a child: does what the test orders, until it is to end.
pub fn obey(mut perform: impl FnMut(&str)) {
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "end" => return,
            what => {
                perform(what);
                say(what);
            }
        }
    }
}
