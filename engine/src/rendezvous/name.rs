//! Names, and the files of each.
//!
//! ```text
//! <runtime directory>/        mode 0700, owned by us
//!     NAME.lock               held with flock while the name is live; never unlinked
//!     NAME.sock               where main listens; replaced by rename, unlinked under the lock
//!     .NAME.<16 hex>.tmp      a socket on its way to its name
//! ```
//! A name cannot start with a dot, so no name's socket looks like another name's leftover.

use std::{fmt, io};

use rustix::rand::{GetRandomFlags, getrandom};

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
    pub(super) fn is_temporary(&self, file: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_allowed_characters_pass() {
        for name in ["a", "app", "App-1_x.y", "-", "_", "0", "a..", &"x".repeat(64)] {
            assert_eq!(Name::new(name).unwrap().to_string(), name);
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
}
