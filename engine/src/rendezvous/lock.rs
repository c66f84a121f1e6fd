//! The lock that makes a name live.
//!
//! flock leaves when its last holder's file is closed, by whatever death, so a killed main blocks nobody. The
//! file itself is never unlinked: two binders that lock two files of one name would both believe to be alone.
//! Should somebody remove it all the same, the lock is worth nothing until it is seen to be the one at the path.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::name::Name;
use super::path::RuntimeDir;
use crate::sys::fork::{Epoch, ForkFd};

/// A name held by this process, until it is dropped.
#[derive(Debug)]
pub(super) struct NameLock {
    file: ForkFd,
    epoch: Epoch,
    name: String,
}

/// A name that could not be locked.
#[derive(Debug)]
pub(super) enum LockError {
    /// Somebody holds it; the process id is what the holder wrote, and may be missing.
    Taken { holder: Option<u32> },
    /// The lock file is not what it should be, or could not be used.
    Io(io::Error),
}

impl From<Errno> for LockError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl NameLock {
    /// Takes the lock without waiting.
    pub(super) fn take(dir: &RuntimeDir, name: &Name) -> Result<Self, LockError> {
        /// Replacements of the file that are put up with; nobody of ours ever replaces it.
        const ATTEMPTS: usize = 16;
        let path = name.lock();
        for _ in 0..ATTEMPTS {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = rustix::fs::openat(dir, &path, flags, Mode::RUSR | Mode::WUSR)?;
            crash_point!("bind-lock-opened");
            if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
                return Err(LockError::Io(io::Error::other("the lock file is not a regular file; remove it")));
            }
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(LockError::Taken { holder: read_holder(&file) }),
                Err(error) => return Err(error.into()),
            }
            crash_point!("bind-locked");
            if is_at_path(&file, dir, &path)? {
                write_holder(&file);
                return Ok(Self { file: ForkFd::new(file), epoch: Epoch::current(), name: path });
            }
        }
        Err(LockError::Io(io::Error::other("the lock file is replaced again and again; find out by whom")))
    }

    /// Whether the lock still protects the name, and belongs to this process rather than to its parent.
    pub(super) fn is_ours(&self, dir: &RuntimeDir) -> bool {
        self.epoch.is_current() && is_at_path(&self.file, dir, &self.name).unwrap_or(false)
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        if self.epoch.is_current() {
            // Whoever finds the name taken by its next holder, just before that has left its own id, must not read ours.
            let _ = rustix::fs::ftruncate(&self.file, 0);
            // A program that another thread is starting holds a copy of the file until its exec, and with it
            // the lock. Unlocking reaches every copy; closing ours does not.
            crash_point!("unlock-before");
            let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
            crash_point!("unlock-after");
        }
    }
}

fn is_at_path(file: impl AsFd, dir: &RuntimeDir, path: &str) -> Result<bool, Errno> {
    let ours = rustix::fs::fstat(file)?;
    match dir.stat(path) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Leaves our process id for whoever finds the name taken. It is a hint: failing to write it does no harm.
fn write_holder(file: &OwnedFd) {
    let text = format!("{}\n", std::process::id());
    if rustix::fs::ftruncate(file, 0).is_ok() {
        crash_point!("bind-holder-truncated");
        let _ = rustix::io::pwrite(file, text.as_bytes(), 0);
    }
}

fn read_holder(file: &OwnedFd) -> Option<u32> {
    let mut text = [0_u8; 16];
    let len = rustix::io::pread(file, &mut text[..], 0).ok()?;
    std::str::from_utf8(text.get(..len)?).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::{fs, thread};

    use super::*;
    use crate::config::Config;

    fn directory() -> (tempfile::TempDir, RuntimeDir) {
        let parent = tempfile::tempdir().unwrap();
        let config = Config { runtime_dir: Some(parent.path().join("memit")), ..Config::default() };
        let dir = RuntimeDir::open_or_create(&config).unwrap();
        (parent, dir)
    }

    #[test]
    fn a_held_name_is_taken_and_says_by_whom_until_it_is_dropped() {
        let (_parent, dir) = directory();
        let name = Name::new("app").unwrap();
        let lock = NameLock::take(&dir, &name).unwrap();
        assert!(lock.is_ours(&dir));
        let error = NameLock::take(&dir, &name).unwrap_err();
        assert!(matches!(error, LockError::Taken { holder } if holder == Some(std::process::id())));
        NameLock::take(&dir, &Name::new("other").unwrap()).unwrap();
        drop(lock);
        assert_eq!(fs::metadata(dir.path_of(&name.lock())).unwrap().len(), 0, "nobody holds it");
        NameLock::take(&dir, &name).unwrap();
    }

    #[test]
    fn of_many_threads_exactly_one_gets_the_lock() {
        let (_parent, dir) = directory();
        let name = Name::new("app").unwrap();
        for _ in 0..50 {
            let start = Barrier::new(4);
            let attempts: Vec<_> = thread::scope(|scope| {
                let attempt = || {
                    start.wait();
                    NameLock::take(&dir, &name)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(attempt)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1);
            assert!(attempts.iter().all(|attempt| matches!(attempt, Ok(_) | Err(LockError::Taken { .. }))));
        }
    }

    #[test]
    fn a_lock_on_a_file_that_was_replaced_protects_nothing() {
        let (_parent, dir) = directory();
        let name = Name::new("app").unwrap();
        let lock = NameLock::take(&dir, &name).unwrap();
        dir.unlink(&name.lock()).unwrap();
        assert!(!lock.is_ours(&dir));
        let newer = NameLock::take(&dir, &name).unwrap();
        assert!(newer.is_ours(&dir) && !lock.is_ours(&dir));
    }

    #[test]
    fn a_copy_of_the_file_in_a_starting_program_does_not_keep_the_name() {
        let (_parent, dir) = directory();
        let name = Name::new("app").unwrap();
        let lock = NameLock::take(&dir, &name).unwrap();
        let copy = rustix::io::fcntl_dupfd_cloexec(&lock.file, 0).unwrap();
        drop(lock);
        NameLock::take(&dir, &name).unwrap();
        drop(copy);
    }

    #[test]
    fn something_else_in_place_of_the_lock_file_is_refused() {
        let (_parent, dir) = directory();
        let link = Name::new("link").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path_of(&link.lock())).unwrap();
        assert!(matches!(NameLock::take(&dir, &link), Err(LockError::Io(_))));
        let folder = Name::new("folder").unwrap();
        fs::create_dir(dir.path_of(&folder.lock())).unwrap();
        assert!(matches!(NameLock::take(&dir, &folder), Err(LockError::Io(_))));
    }
}
