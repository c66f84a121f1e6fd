//! The file whose lines the demo sends.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

/// The README, which the demo sends when no file is named.
const README: &[u8] = include_bytes!("../../../README.md");

/// Large reads, so that the system calls for reading weigh little.
const BUFFER: usize = 256 * 1024;

/// A file that every renderer can read by itself.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Readme,
    File(PathBuf),
}

/// Why the demo cannot send a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {path}: {source}. Name a file that you may read with --input", path = path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{path} is {found}, but each renderer reads the file by itself, from its start. Name a regular file with --input",
        path = path.display()
    )]
    Irregular { path: PathBuf, found: &'static str },
}

impl Input {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        path.map_or(Self::Readme, Self::File)
    }

    /// What to call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Readme => "README.md (compiled in)".into(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Its path, if it is not the one that is compiled in.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Readme => None,
            Self::File(path) => Some(path),
        }
    }

    /// Checks that every renderer will be able to read it, and returns its length.
    pub(crate) fn check(&self) -> Result<u64, InputError> {
        let Self::File(path) = self else {
            return Ok(README.len() as u64);
        };
        let unreadable = |source| InputError::Unreadable { path: path.clone(), source };
        // Asked before it is opened: opening a pipe would wait for its writer.
        let kind = fs::metadata(path).map_err(unreadable)?.file_type();
        if !kind.is_file() {
            let found = if kind.is_dir() { "a directory" } else { "not a regular file" };
            return Err(InputError::Irregular { path: path.clone(), found });
        }
        let file = File::open(path).map_err(unreadable)?;
        Ok(file.metadata().map_err(unreadable)?.len())
    }

    /// Opens it at its start.
    pub(crate) fn open(&self) -> Result<Box<dyn BufRead>, InputError> {
        match self {
            Self::Readme => Ok(Box::new(README)),
            Self::File(path) => match File::open(path) {
                Ok(file) => Ok(Box::new(BufReader::with_capacity(BUFFER, file))),
                Err(source) => Err(InputError::Unreadable { path: path.clone(), source }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_needs_no_file() {
        let input = Input::new(None);
        assert_eq!(input.check().unwrap(), README.len() as u64);
        let mut all = Vec::new();
        io::Read::read_to_end(&mut input.open().unwrap(), &mut all).unwrap();
        assert_eq!(all, README);
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = Input::new(Some("no/such/file".into())).check().unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such/file: No such file"), "{error}");
    }

    #[test]
    fn a_directory_and_a_device_are_refused() {
        for (path, found) in [("/", "/ is a directory"), ("/dev/null", "/dev/null is not a regular file")] {
            let error = Input::new(Some(path.into())).check().unwrap_err();
            assert!(error.to_string().starts_with(found), "{error}");
        }
    }
}
