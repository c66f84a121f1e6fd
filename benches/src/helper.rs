//! What this program does when a measurement starts it as a helper.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::counting::trace;
use crate::peer::Peer;
use crate::process::{end_with, has_ended};
use crate::scenario;
use crate::shared::Shared;
use crate::{Result, stage};

/// Does the work that the arguments tell: those that a measurement added to the ones of
/// [`Setting::launch`](crate::setting::Setting::launch).
pub fn run(arguments: &[OsString]) -> Result<()> {
    let [work, descriptor, parent, rest @ ..] = arguments else {
        return Err("this command is for the benchmark's own use, which gives it more arguments".into());
    };
    let (descriptor, parent): (RawFd, i32) = (number(descriptor)?, number(parent)?);
    end_with(parent)?;
    let shared = Shared::inherit(descriptor)?;
    match (work.to_str(), rest) {
        (Some("trace"), pids) => {
            let pids = pids.iter().map(number).collect::<Result<Vec<_>>>()?;
            trace::run(&shared, &pids)
        }
        (Some("peer"), [role, wait, directory, numbers @ ..]) => {
            trace::allow_tracing_by_siblings();
            let known = stage::WAITS.into_iter().find(|(name, _)| wait == name);
            let (_, wait) = known.ok_or_else(|| format!("there is no way to wait called {}", wait.display()))?;
            let numbers = numbers.iter().map(number).collect::<Result<_>>()?;
            let peer = Peer { shared: Arc::new(shared), wait, directory: directory.into(), numbers };
            match scenario::peer(&role.to_string_lossy(), &peer) {
                // It has ended, and another of its helpers before this one.
                Err(_) if has_ended(parent) => Ok(()),
                ended => ended,
            }
        }
        _ => Err(format!("there is no such helper: {}", work.display()).into()),
    }
}

fn number<N: std::str::FromStr>(text: &OsString) -> Result<N>
where
    N::Err: std::error::Error,
{
    let parsed = text.to_string_lossy().parse();
    parsed.map_err(|error| format!("a number was expected, and {} found: {error}", text.display()).into())
}
