//! Where a rival is to work, and on what: the same for host and guest, which are told it as arguments.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::Result;
use crate::shared::Shared;

/// Who of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who asks, and holds the watch.
    Host,
    /// Who answers.
    Guest,
}

impl Side {
    /// What tells its messages from the other side's.
    pub(super) fn mark(self) -> u64 {
        match self {
            Self::Host => 0x686f_7374_2e68_6f73,
            Self::Guest => 0x6775_6573_742e_6775,
        }
    }
}

/// How both sides wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// They look again and again.
    Spin,
    /// They sleep.
    Block,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Round trips: a message there, one of the same size back.
    Trip,
    /// Messages one way; the last one is answered.
    Stream,
}

macro_rules! names {
    ($type:ident: $($variant:ident = $name:literal),+) => {
        impl $type {
            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(name: &str) -> std::result::Result<Self, String> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(format!("`{name}` is none of {:?}", [$($name),+])),
                }
            }
        }
    };
}
names!(Wait: Spin = "spin", Block = "block");
names!(Work: Trip = "trip", Stream = "stream");

/// Where and on what.
#[derive(Clone, Debug)]
pub struct Place {
    /// How both sides wait.
    pub wait: Wait,
    /// What they do.
    pub work: Work,
    /// Bytes of a message.
    pub len: usize,
    /// A directory of this pair's own.
    pub directory: PathBuf,
    /// What the names of this pair begin with, where names are not paths.
    pub prefix: String,
    /// Memory that the two processes share: the words of the [`board`](crate::board), and the raw rings.
    pub shared: Arc<Shared>,
}

impl Place {
    /// The arguments that tell it.
    #[must_use]
    pub fn told(&self) -> [String; 5] {
        [
            self.wait.name().to_owned(),
            self.work.name().to_owned(),
            self.len.to_string(),
            self.directory.to_string_lossy().into_owned(),
            self.prefix.clone(),
        ]
    }

    /// What the arguments tell; the shared memory is another matter.
    pub fn hear(told: &[String], shared: Shared) -> Result<Self> {
        let [wait, work, len, directory, prefix] = told else {
            return Err("a place takes five arguments".into());
        };
        Ok(Self {
            wait: wait.parse()?,
            work: work.parse()?,
            len: len.parse()?,
            directory: directory.into(),
            prefix: prefix.clone(),
            shared: Arc::new(shared),
        })
    }

    /// A path of this pair's own.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let place = Place {
            wait: Wait::Block,
            work: Work::Stream,
            len: 48,
            directory: "/tmp/here".into(),
            prefix: "mine_".into(),
            shared: Arc::new(Shared::create(4096).unwrap()),
        };
        let hear = |told: &[String]| Place::hear(told, Shared::create(4096).unwrap());
        assert_eq!(hear(&place.told()).unwrap().told(), place.told());
        let mut wrong = place.told();
        wrong[0] = "sleep".into();
        assert!(hear(&wrong).unwrap_err().to_string().contains("`sleep` is none of"));
    }
}
