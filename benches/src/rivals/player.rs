//! The two processes of a pair: the contest starts the host, which starts the guest. Each ends with who started it.

use std::io::{BufReader, Read, pipe, stdin};
use std::os::fd::RawFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::session::{Guest, Host, say};
use super::threads::Threads;
use super::{End, Place, Rival, lineup, memit};
use crate::Result;
use crate::machine::pin;
use crate::process::end_with;
use crate::shared::Shared;

/// What the first argument says to a process of a pair.
pub const HOST: &str = "host";
/// See [`HOST`].
pub const GUEST: &str = "guest";

/// Does what the arguments tell, if they make this process one of a pair.
///
/// A host that fails says so to the contest, and to nobody else.
pub fn play(arguments: &[String]) -> Option<Result<()>> {
    let (role, told) = arguments.split_first()?;
    match role.as_str() {
        HOST => Some(play_host(told).or_else(|error| say(&format!("failed {}", one_line(&error.to_string()))))),
        GUEST => Some(play_guest(told)),
        _ => None,
    }
}

fn play_host(told: &[String]) -> Result<()> {
    let [name, parent, place @ ..] = told else { return Err("a host takes more arguments".into()) };
    end_with(parent.parse()?)?;
    let entry = lineup::named(name)?;
    (entry.host)(entry.name, &Place::hear(place, Shared::create(memit::ring::LEN)?)?)
}

fn play_guest(told: &[String]) -> Result<()> {
    let [name, parent, descriptor, place @ ..] = told else { return Err("a guest takes more arguments".into()) };
    end_with(parent.parse()?)?;
    let descriptor: RawFd = descriptor.parse()?;
    (lineup::named(name)?.guest)(&Place::hear(place, Shared::inherit(descriptor)?)?)
}

/// The host's process.
pub(super) fn host<R: Rival>(name: &'static str, place: &Place) -> Result<()> {
    let offer = R::offer(place)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(GUEST).arg(name).arg(std::process::id().to_string());
    command.arg(place.shared.descriptor().to_string()).args(place.told());
    let mut guest = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let orders = guest.stdin.take().ok_or("the guest has no standard input")?;
    let watch = thread::Builder::new().name("compare-watch".into()).spawn(move || watch(guest))?;
    let end = R::host(offer, place)?;
    pin(0)?;
    say("ready")?;
    end.live_as_host(place, Host::new(place.shared.clone(), orders)?)?;
    watch.join().map_err(|_| "the thread that waits for the guest has panicked")?;
    Ok(())
}

/// Waits for the guest's end. If that is a bad one, the host, which may be spinning for it, ends too.
fn watch(mut guest: Child) {
    let mut said = String::new();
    if let Some(errors) = &mut guest.stderr {
        // What it said as far as it can be read.
        let _ = errors.read_to_string(&mut said);
    }
    let how = match guest.wait() {
        Ok(status) if status.success() => return,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let why = if said.trim().is_empty() { how } else { one_line(&said) };
    // The contest may have gone.
    let _ = say(&format!("failed the guest: {why}"));
    std::process::exit(1)
}

/// The guest's process.
pub(super) fn guest<R: Rival>(place: &Place) -> Result<()> {
    let end = R::guest(place)?;
    pin(1)?;
    end.live_as_guest(place, Guest::new(place.shared.clone(), BufReader::new(stdin())))
}

/// A host's process with the guest in it, as a second thread.
pub(super) fn both<T: Threads>(_: &'static str, place: &Place) -> Result<()> {
    let (host, guest) = T::ends(place)?;
    let (orders, told) = pipe()?;
    let there = place.clone();
    let second = thread::Builder::new().name("compare-guest".into()).spawn(move || {
        let lived = pin(1)
            .map_err(Into::into)
            .and_then(|_| guest.live_as_guest(&there, Guest::new(there.shared.clone(), BufReader::new(orders))));
        if let Err(error) = lived {
            // The contest may have gone. The host may be spinning for this guest.
            let _ = say(&format!("failed {}", one_line(&error.to_string())));
            std::process::exit(1);
        }
    })?;
    pin(0)?;
    say("ready")?;
    host.live_as_host(place, Host::new(place.shared.clone(), told)?)?;
    second.join().map_err(|_| "the guest's thread has panicked")?;
    Ok(())
}

/// There is no guest's process for a host that is both.
pub(super) fn nobody(_: &Place) -> Result<()> {
    Err("this candidate has no guest process".into())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
