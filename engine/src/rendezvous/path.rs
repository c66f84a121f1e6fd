//! Where a name lives: the runtime directory and the files in it.
//!
//! ```text
//! <runtime directory>/        mode 0700, owned by us
//!     NAME.lock               held with flock while the name is live; never unlinked
//!     NAME.sock               where main listens; replaced by rename, unlinked under the lock
//!     .NAME.<16 hex>.tmp      a socket on its way to its name
//! ```
//! A name cannot start with a dot, so no name's socket looks like another name's leftover.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, fmt, io};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::config::Config;

/// Overrides every other choice of directory but [`Config::runtime_dir`].
const OVERRIDE: &str = "MEMIT_RUNTIME_DIR";

/// A valid application name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(String);

/// A name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name {found:?} {problem}; use 1 to {max} characters of A-Z a-z 0-9 _ - and, except at the start, dots",
    max = Name::MAX_LEN
)]
pub struct NameInvalid {
    /// The name.
    pub found: String,
    /// What is wrong with it.
    pub problem: NameProblem,
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameProblem {
    /// It has no character.
    Empty,
    /// It has this many bytes.
    TooLong(usize),
    /// It starts with a dot.
    LeadingDot,
    /// It has this character in it.
    Character(char),
}

impl fmt::Display for NameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong(len) => write!(f, "has {len} bytes"),
            Self::LeadingDot => f.write_str("starts with a dot"),
            Self::Character(c) => write!(f, "contains {c:?}"),
        }
    }
}

impl Name {
    const MAX_LEN: usize = 64;

    pub(crate) fn new(name: &str) -> Result<Self, NameInvalid> {
        let invalid = |problem| Err(NameInvalid { found: name.into(), problem });
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() {
            return invalid(NameProblem::Empty);
        }
        if let Some(c) = name.chars().find(|&c| !allowed(c)) {
            return invalid(NameProblem::Character(c));
        }
        if name.starts_with('.') {
            return invalid(NameProblem::LeadingDot);
        }
        if name.len() > Self::MAX_LEN {
            return invalid(NameProblem::TooLong(name.len()));
        }
        Ok(Self(name.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn socket(&self) -> String {
        format!("{}.sock", self.0)
    }

    pub(super) fn lock(&self) -> String {
        format!("{}.lock", self.0)
    }

    /// A fresh name for a socket that is about to be bound.
    pub(super) fn temporary(&self) -> io::Result<String> {
        let mut random = [0_u8; 8];
        getrandom(&mut random, GetRandomFlags::empty())?;
        Ok(format!(".{}.{:016x}.tmp", self.0, u64::from_le_bytes(random)))
    }

    /// Whether a file is a socket that was on its way to this name, and to no other.
    fn is_temporary(&self, file: &[u8]) -> bool {
        file.strip_prefix(b".")
            .and_then(|rest| rest.strip_prefix(self.0.as_bytes()))
            .and_then(|rest| rest.strip_prefix(b"."))
            .and_then(|rest| rest.strip_suffix(b".tmp"))
            .is_some_and(|hex| hex.len() == 16 && hex.iter().all(u8::is_ascii_hexdigit))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
        "the runtime directory {} belongs to user {found}, expected user {expected}; remove it, or choose another with {OVERRIDE}",
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
    #[error("the runtime directory {} has mode {found:04o}, expected {expected:04o}; run chmod {expected:o} on it", path.display())]
    WrongMode {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
        /// What they must be.
        expected: u32,
    },
    /// The directory could not be made or opened.
    #[error("cannot {action} the runtime directory {}: {source}; make it with mode 0700, or choose another with {OVERRIDE}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
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
    fd: OwnedFd,
    path: PathBuf,
}

impl RuntimeDir {
    const MODE: u32 = 0o700;

    /// Opens the directory that bind uses, making it if it is not there.
    pub(super) fn open_or_create(config: &Config) -> Result<Self, RuntimeDirError> {
        let path = choose(config)?;
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) => {
                let dir = Self::open_unchecked(path)?;
                // The process's umask may have taken bits away.
                if let Err(source) = rustix::fs::fchmod(&dir.fd, Mode::RWXU) {
                    return Err(RuntimeDirError::Io {
                        path: dir.path,
                        action: "set the mode of",
                        source: source.into(),
                    });
                }
                dir.check(Owner::Us)
            }
            Err(Errno::EXIST) => Self::open_unchecked(path)?.check(Owner::Us),
            Err(source) => Err(RuntimeDirError::Io { path, action: "make", source: source.into() }),
        }
    }

    /// Opens the directory where connect looks; `Err(path)` inside `Ok` if there is none.
    pub(super) fn open_existing(config: &Config, owner: Owner) -> Result<Result<Self, PathBuf>, RuntimeDirError> {
        let path = choose(config)?;
        match Self::open_unchecked(path) {
            Ok(dir) => dir.check(owner).map(Ok),
            Err(RuntimeDirError::Io { path, source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Err(path)),
            Err(error) => Err(error),
        }
    }

    fn open_unchecked(path: PathBuf) -> Result<Self, RuntimeDirError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path }),
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
        let short = format!("/proc/self/fd/{}/{file}", self.fd.as_raw_fd());
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
fn choose(config: &Config) -> Result<PathBuf, RuntimeDirError> {
    let explicit = config.runtime_dir.clone().or_else(|| variable(OVERRIDE));
    if let Some(path) = explicit {
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
    fn names_of_the_allowed_characters_pass() {
        for name in ["a", "app", "App-1_x.y", "-", "_", "0", "a..", &"x".repeat(64)] {
            assert_eq!(Name::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_bad_name_is_refused_with_what_is_wrong() {
        let cases = [
            ("", NameProblem::Empty),
            (".", NameProblem::LeadingDot),
            ("..", NameProblem::LeadingDot),
            (".hidden", NameProblem::LeadingDot),
            ("a/b", NameProblem::Character('/')),
            ("../a", NameProblem::Character('/')),
            ("a\0b", NameProblem::Character('\0')),
            ("a b", NameProblem::Character(' ')),
            ("caf\u{e9}", NameProblem::Character('\u{e9}')),
        ];
        for (name, problem) in cases {
            assert_eq!(Name::new(name).unwrap_err(), NameInvalid { found: name.into(), problem });
        }
        assert_eq!(Name::new(&"x".repeat(65)).unwrap_err().problem, NameProblem::TooLong(65));
        let text = Name::new("a/b").unwrap_err().to_string();
        assert_eq!(
            text,
            "the name \"a/b\" contains '/'; use 1 to 64 characters of A-Z a-z 0-9 _ - and, except at the start, dots"
        );
    }

    #[test]
    fn a_leftover_belongs_to_exactly_one_name() {
        let name = Name::new("app").unwrap();
        let temporary = name.temporary().unwrap();
        assert!(name.is_temporary(temporary.as_bytes()));
        for other in ["ap", "appp", "app.0123456789abcdef", "pp"] {
            assert!(!Name::new(other).unwrap().is_temporary(temporary.as_bytes()));
        }
        let longer = Name::new("app.0123456789abcdef").unwrap().temporary().unwrap();
        assert!(!name.is_temporary(longer.as_bytes()));
        for file in ["app.sock", "app.lock", ".app.tmp", ".app.0123.tmp", ".app.0123456789abcdeg.tmp"] {
            assert!(!name.is_temporary(file.as_bytes()), "{file}");
        }
    }

    #[test]
    fn a_missing_directory_is_made_private_whatever_the_parent_allows() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new");
        assert_eq!(RuntimeDir::open_existing(&config(&path), Owner::Us).unwrap().unwrap_err(), path);
        RuntimeDir::open_or_create(&config(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
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
        assert!(text.ends_with("has mode 0500, expected 0700; run chmod 700 on it"), "{text}");
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
