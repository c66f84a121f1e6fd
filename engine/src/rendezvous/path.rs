//! The runtime directory: which one, whether it is private, and what is done in it.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, io};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use super::name::Name;
use crate::advice::{self, Advice};
use crate::config::Config;
use crate::sys::fork::ForkFd;

/// Overrides every other choice of directory but [`Config::runtime_dir`].
const OVERRIDE: &str = "MEMIT_RUNTIME_DIR";

/// A runtime directory that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeDirError {
    /// The configured path is not absolute.
    #[error("the runtime directory {} is a relative path; give an absolute one", path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// Something is there that is not a directory, perhaps a symbolic link to one.
    #[error(
        "the runtime directory {} is not a directory, or is a symbolic link; remove it, or choose another with {OVERRIDE}",
        path.display()
    )]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory belongs to somebody else.
    #[error(
        "the runtime directory {} belongs to user {found}, expected user {expected}; choose another with {OVERRIDE}, or remove it",
        path.display()
    )]
    WrongOwner {
        /// The path.
        path: PathBuf,
        /// Its owner's user id.
        found: u32,
        /// Our effective user id.
        expected: u32,
    },
    /// Others may enter the directory, or its owner may not.
    #[error(
        "the runtime directory {} has mode {found:04o}, expected {expected:04o}; name one that only memit uses with \
         {OVERRIDE}, which is made if it is not there, or, if only memit uses this one, run chmod {expected:o} on it",
        path.display()
    )]
    WrongMode {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
        /// What they must be.
        expected: u32,
    },
    /// The directory could not be made, opened or written.
    #[error("cannot {action} the runtime directory {}: {source}{}", path.display(), what_to_do(source))]
    Io {
        /// The path.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What to do about a call that failed on a runtime directory.
fn what_to_do(error: &io::Error) -> Advice {
    let Some(number) = error.raw_os_error() else { return Advice::none() };
    advice::about(error).or(match number {
        libc::ENOSPC | libc::EDQUOT => "make room there, or choose another with MEMIT_RUNTIME_DIR",
        libc::EROFS => "choose one that can be written with MEMIT_RUNTIME_DIR",
        _ => "make it with mode 0700, or choose another with MEMIT_RUNTIME_DIR",
    })
}

const OPEN: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The one bit with which a directory can be made that no umask takes away. It stands until the directory has its mode,
/// so that one whose maker was killed before is told from one that somebody wants to have another mode.
const UNFINISHED: Mode = Mode::SVTX;

/// Whether this is a directory of ours that its maker did not come to give its mode. Nobody else has had access to it.
fn is_unfinished(found: &Stat) -> bool {
    let mode = Mode::from_raw_mode(found.st_mode);
    FileType::from_raw_mode(found.st_mode) == FileType::Directory
        && found.st_uid == effective_uid()
        && mode.contains(UNFINISHED)
        && !mode.intersects(Mode::RWXG | Mode::RWXO)
}

/// Who may own a directory that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Our effective user alone.
    Us,
    /// Anyone: the caller judges the listening process itself.
    Anyone,
}

/// An open runtime directory whose owner and mode were checked.
#[derive(Debug)]
pub(crate) struct RuntimeDir {
    fd: ForkFd,
    path: PathBuf,
}

impl RuntimeDir {
    const MODE: u32 = 0o700;

    /// Opens the directory that bind uses, making it if it is not there.
    pub(super) fn open_or_create(config: &Config) -> Result<Self, RuntimeDirError> {
        let path = choose(config.runtime_dir.clone(), variable)?;
        match rustix::fs::mkdir(&path, Mode::RWXU | UNFINISHED) {
            Ok(()) => {
                crash_point!("bind-directory-made");
                Self::finish(&path, |_| true)?;
            }
            Err(Errno::EXIST) => Self::finish(&path, is_unfinished)?,
            Err(source) => return Err(RuntimeDirError::Io { path, action: "make", source: source.into() }),
        }
        Self::open_unchecked(path)?.check(Owner::Us)
    }

    /// Gives a directory that was just made its mode, of which the process's umask may have taken bits away. `is_due`
    /// looks at what is there; what cannot be looked at is left for whoever opens it.
    fn finish(path: &Path, is_due: impl FnOnce(&Stat) -> bool) -> Result<(), RuntimeDirError> {
        let set_mode = || -> Result<(), Errno> {
            // It may lack the bits that it takes to open it for more.
            let Ok(found) = rustix::fs::open(path, OPEN | OFlags::PATH, Mode::empty()) else { return Ok(()) };
            if !rustix::fs::fstat(&found).is_ok_and(|stat| is_due(&stat)) {
                return Ok(());
            }
            match rustix::fs::openat(&found, c".", OPEN | OFlags::RDONLY, Mode::empty()) {
                Ok(dir) => rustix::fs::fchmod(dir, Mode::RWXU),
                Err(_) => rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU),
            }
        };
        set_mode().map_err(|source| RuntimeDirError::Io {
            path: path.into(),
            action: "set the mode of",
            source: source.into(),
        })
    }

    /// Opens the directory where connect looks; `Err(path)` inside `Ok` if there is none.
    pub(super) fn open_existing(config: &Config, owner: Owner) -> Result<Result<Self, PathBuf>, RuntimeDirError> {
        let path = choose(config.runtime_dir.clone(), variable)?;
        if rustix::fs::lstat(&path).is_ok_and(|found| is_unfinished(&found)) {
            // Nobody has bound a name there yet.
            return Ok(Err(path));
        }
        match Self::open_unchecked(path) {
            Ok(dir) => dir.check(owner).map(Ok),
            Err(RuntimeDirError::Io { path, source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Err(path)),
            Err(error) => Err(error),
        }
    }

    fn open_unchecked(path: PathBuf) -> Result<Self, RuntimeDirError> {
        match rustix::fs::open(&path, OPEN | OFlags::RDONLY, Mode::empty()) {
            Ok(fd) => Ok(Self { fd: ForkFd::new(fd), path }),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(RuntimeDirError::NotADirectory { path }),
            Err(source) => Err(RuntimeDirError::Io { path, action: "open", source: source.into() }),
        }
    }

    fn check(self, owner: Owner) -> Result<Self, RuntimeDirError> {
        let stat = match rustix::fs::fstat(&self.fd) {
            Ok(stat) => stat,
            Err(source) => {
                return Err(RuntimeDirError::Io { path: self.path, action: "look at", source: source.into() });
            }
        };
        let us = effective_uid();
        if owner == Owner::Us && stat.st_uid != us {
            return Err(RuntimeDirError::WrongOwner { path: self.path, found: stat.st_uid, expected: us });
        }
        let found = stat.st_mode & 0o777;
        if found != Self::MODE {
            return Err(RuntimeDirError::WrongMode { path: self.path, found, expected: Self::MODE });
        }
        Ok(self)
    }

    /// What it means that something could not be done in the directory; `action` ends with its preposition.
    pub(super) fn refuses(&self, action: &'static str, source: io::Error) -> RuntimeDirError {
        RuntimeDirError::Io { path: self.path.clone(), action, source }
    }

    pub(super) fn path_of(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    /// The address of a socket in this directory.
    pub(super) fn address(&self, file: &str) -> io::Result<SocketAddrUnix> {
        /// Longest path that a socket address holds with its terminating zero.
        const LONGEST: usize = 107;
        let plain = self.path_of(file);
        if plain.as_os_str().len() <= LONGEST {
            return Ok(SocketAddrUnix::new(&plain)?);
        }
        let short = format!("/proc/self/fd/{}/{file}", self.fd.as_fd().as_raw_fd());
        Ok(SocketAddrUnix::new(short)?)
    }

    /// What a file in this directory is, itself rather than what it may link to.
    pub(super) fn stat(&self, file: &str) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.fd, file, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
    }

    pub(super) fn unlink(&self, file: &str) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, file, AtFlags::empty())
    }

    /// Unlinks the sockets that killed binders of `name` left on their way. The caller holds the name's lock.
    pub(super) fn remove_leftovers(&self, name: &Name) -> io::Result<()> {
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let file: &CStr = entry.file_name();
            if name.is_temporary(file.to_bytes()) {
                match rustix::fs::unlinkat(&self.fd, file, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

impl AsFd for RuntimeDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(super) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The configured directory, or the environment's, or the session's, or one of our own in /tmp.
fn choose(configured: Option<PathBuf>, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, RuntimeDirError> {
    if let Some(path) = configured.or_else(|| variable(OVERRIDE)) {
        return if path.is_absolute() { Ok(path) } else { Err(RuntimeDirError::Relative { path }) };
    }
    let session = variable("XDG_RUNTIME_DIR").filter(|path| path.is_absolute() && is_our_directory(path));
    Ok(session
        .map_or_else(|| PathBuf::from(format!("/tmp/memit-{}", effective_uid())), |session| session.join("memit")))
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.as_bytes().is_empty()).map(PathBuf::from)
}

fn is_our_directory(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| {
        stat.st_uid == effective_uid() && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(path: &Path) -> Config {
        Config { runtime_dir: Some(path.into()), ..Config::default() }
    }

    #[test]
    fn a_missing_directory_is_made_private_whatever_the_parent_allows() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new");
        assert_eq!(RuntimeDir::open_existing(&config(&path), Owner::Us).unwrap().unwrap_err(), path);
        RuntimeDir::open_or_create(&config(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        RuntimeDir::open_existing(&config(&path), Owner::Us).unwrap().unwrap();
    }

    #[test]
    fn a_directory_with_another_mode_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o755, 0o770, 0o701, 0o500] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = RuntimeDir::open_or_create(&config(dir.path())).unwrap_err();
            assert!(
                matches!(error, RuntimeDirError::WrongMode { found, expected: 0o700, .. } if found == mode),
                "{error}"
            );
        }
        let text = RuntimeDir::open_or_create(&config(dir.path())).unwrap_err().to_string();
        assert!(
            text.contains("has mode 0500, expected 0700; name one that only memit uses with MEMIT_RUNTIME_DIR"),
            "{text}"
        );
        assert!(text.ends_with("or, if only memit uses this one, run chmod 700 on it"), "{text}");
    }

    #[test]
    fn a_directory_whose_maker_was_killed_before_it_had_its_mode_is_finished_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new");
        // Whatever the killed process's umask took away.
        for left in [0o1700, 0o1500, 0o1300, 0o1000] {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(left)).unwrap();
            assert_eq!(RuntimeDir::open_existing(&config(&path), Owner::Us).unwrap().unwrap_err(), path);
            RuntimeDir::open_or_create(&config(&path)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
            RuntimeDir::open_existing(&config(&path), Owner::Us).unwrap().unwrap();
            fs::remove_dir(&path).unwrap();
        }
    }

    #[test]
    fn a_sticky_directory_that_others_may_enter_is_not_taken_for_one_that_was_left_unfinished() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o1710, 0o1701, 0o1777] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = RuntimeDir::open_or_create(&config(dir.path())).unwrap_err();
            assert!(matches!(error, RuntimeDirError::WrongMode { .. }), "{error}");
            assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        // Root can make a foreign directory; for everyone else, `/` is one.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let us = effective_uid();
        let path = if us == 0 {
            std::os::unix::fs::chown(dir.path(), Some(1), None).unwrap();
            dir.path()
        } else {
            Path::new("/")
        };
        let error = RuntimeDir::open_or_create(&config(path)).unwrap_err();
        assert!(matches!(error, RuntimeDirError::WrongOwner { expected, .. } if expected == us), "{error}");
        let error = RuntimeDir::open_existing(&config(path), Owner::Us).unwrap_err();
        assert!(matches!(error, RuntimeDirError::WrongOwner { .. }), "{error}");
        if us == 0 {
            RuntimeDir::open_existing(&config(path), Owner::Anyone).unwrap().unwrap();
        }
    }

    #[test]
    fn a_link_or_a_file_in_place_of_the_directory_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (real, link, file) = (parent.path().join("real"), parent.path().join("link"), parent.path().join("file"));
        RuntimeDir::open_or_create(&config(&real)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        fs::write(&file, "").unwrap();
        for path in [link, file] {
            for error in [
                RuntimeDir::open_or_create(&config(&path)).unwrap_err(),
                RuntimeDir::open_existing(&config(&path), Owner::Us).unwrap_err(),
            ] {
                assert!(matches!(error, RuntimeDirError::NotADirectory { .. }), "{error}");
            }
        }
    }

    #[test]
    fn a_directory_is_chosen_by_setting_then_override_then_session_then_user() {
        let session = tempfile::tempdir().unwrap();
        let ours = format!("/tmp/memit-{}", effective_uid());
        let chosen = |configured: Option<&str>, set: Option<&str>, xdg: Option<&Path>| {
            let variable = |name: &str| match name {
                OVERRIDE => set.map(PathBuf::from),
                "XDG_RUNTIME_DIR" => xdg.map(PathBuf::from),
                _ => None,
            };
            choose(configured.map(PathBuf::from), variable).unwrap()
        };
        let xdg = Some(session.path());
        assert_eq!(chosen(Some("/a"), Some("/b"), xdg), Path::new("/a"));
        assert_eq!(chosen(None, Some("/b"), xdg), Path::new("/b"));
        assert_eq!(chosen(None, None, xdg), session.path().join("memit"));
        assert_eq!(chosen(None, None, None), Path::new(&ours));
        // Not there, not absolute, not a directory.
        for useless in ["/nonexistent", "run", "/dev/null"] {
            assert_eq!(chosen(None, None, Some(Path::new(useless))), Path::new(&ours));
        }
        if effective_uid() == 0 {
            std::os::unix::fs::chown(session.path(), Some(1), None).unwrap();
            assert_eq!(chosen(None, None, xdg), Path::new(&ours), "a session of another user");
        }
    }

    #[test]
    fn a_relative_path_is_refused() {
        let error = RuntimeDir::open_or_create(&config(Path::new("here"))).unwrap_err();
        assert!(matches!(error, RuntimeDirError::Relative { .. }), "{error}");
    }

    #[test]
    fn a_parent_that_is_missing_is_named() {
        let error = RuntimeDir::open_or_create(&config(Path::new("/nonexistent/memit"))).unwrap_err();
        assert!(error.to_string().starts_with("cannot make the runtime directory /nonexistent/memit"), "{error}");
    }

    #[test]
    fn a_path_too_long_for_an_address_goes_through_the_descriptor() {
        let parent = tempfile::tempdir().unwrap();
        let dir = RuntimeDir::open_or_create(&config(&parent.path().join("d".repeat(120)))).unwrap();
        let address = dir.address("app.sock").unwrap();
        let path = address.path_bytes().unwrap();
        assert!(path.starts_with(b"/proc/self/fd/") && path.ends_with(b"/app.sock"));
    }
}
