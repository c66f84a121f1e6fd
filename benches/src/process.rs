//! The processes that a measurement starts, and the directory of its sockets: nothing of either is left, whatever ends
//! the measurement.

use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use tempfile::TempDir;

use crate::machine::unpinned;
use crate::setting::Setting;
use crate::{Result, lock};

/// The directory that is to be removed if this process gives up.
static DIRECTORY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Ends this process from any thread, while the one that measures spins on and on: removes the directory, and ends the
/// other processes with this one.
pub fn give_up(code: i32) -> ! {
    if let Some(path) = lock(&DIRECTORY).take() {
        // It is as good as can be done.
        let _ = fs::remove_dir_all(path);
    }
    std::process::exit(code)
}

/// A directory for sockets.
#[derive(Debug)]
pub struct Directory(TempDir);

impl Directory {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let made = tempfile::Builder::new().prefix("memit-bench-").permissions(Permissions::from_mode(0o700)).tempdir();
        let made = made.map_err(|error| {
            let temporary = std::env::temp_dir();
            format!(
                "cannot make a directory in {}: {error}; set TMPDIR to one that you may write to",
                temporary.display()
            )
        })?;
        *lock(&DIRECTORY) = Some(made.path().to_owned());
        Ok(Self(made))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        *lock(&DIRECTORY) = None;
    }
}

/// The peer process, which is ended when this is dropped. If it ends before, this process gives up: whoever measures
/// may be spinning on a word that nobody will write any more.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    handle: OwnedFd,
    ending: Arc<AtomicBool>,
    watch: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it on any core, and a thread that waits for its end.
    pub fn start(setting: &Setting, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let ending = Arc::new(AtomicBool::new(false));
        let is_meant = Arc::clone(&ending);
        unpinned(&setting.allowed, || {
            let mut child = command.spawn().map_err(|error| format!("cannot start the peer process: {error}"))?;
            let pid = child.id();
            let number = Pid::from_raw(i32::try_from(pid)?).ok_or("the peer process has no number")?;
            let handle = pidfd_open(number, PidfdFlags::empty())?;
            let watch = thread::Builder::new().name("bench-watch".into()).spawn(move || {
                let status = child.wait();
                // A peer ends well if its main closes the connection, and then only.
                let is_well = status.as_ref().is_ok_and(ExitStatus::success);
                if !is_well && !is_meant.load(Ordering::Relaxed) {
                    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    eprintln!("memit: the benchmark's peer process {pid} ended before its time: {how}");
                    give_up(1);
                }
            })?;
            Ok(Self { pid, handle, ending, watch: Some(watch) })
        })?
    }

    /// From now on it may end.
    pub fn is_to_end(&self) {
        // The watching thread sees it: it waits for an end that comes behind it.
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.is_to_end();
        // It fails if the process has ended.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
        if let Some(watch) = self.watch.take() {
            // It does not panic.
            let _ = watch.join();
        }
    }
}

/// Ends this process, a helper, with the thread that started it, which is to be `parent`'s main thread.
pub(crate) fn end_with(parent: i32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that.
    if has_ended(parent) {
        return Err("the process that started this helper has ended".into());
    }
    Ok(())
}

/// Whether `parent`, which started this process, has ended.
pub(crate) fn has_ended(parent: i32) -> bool {
    getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent)
}
