//! How the descriptors of sockets and pipes are waited for: blocking, or again and again.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionbio;

use super::Wait;
use crate::Result;

/// How long a peer may take to come.
pub const ARRIVAL: Duration = Duration::from_secs(10);

/// Has the descriptor block, or not.
pub fn set(descriptor: impl AsFd, wait: Wait) -> Result<()> {
    Ok(ioctl_fionbio(descriptor, wait == Wait::Spin)?)
}

/// Writes all of `bytes`.
#[inline]
pub fn write(to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_early(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `bytes` are full.
#[inline]
pub fn read(from: &mut impl Read, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match from.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(found) => bytes = &mut bytes[found..],
            Err(error) if is_early(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether it is to be tried again.
#[inline]
pub fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Tries until there is a peer, which may be starting yet.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        if began.elapsed() > ARRIVAL {
            return Err(format!("no {what} within {ARRIVAL:?}").into());
        }
        std::thread::yield_now();
    }
}
