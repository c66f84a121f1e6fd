//! The processes of a run: started, killed, stopped, asked to leave, and started again.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{self, Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    growth::Growth,
    held::Held,
    place::{Janitor, Place, memit},
    plan::{Act, Whom},
};

/// What happened to the processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deeds {
    pub(crate) kills: u64,
    pub(crate) leaves: u64,
    pub(crate) stops: u64,
    pub(crate) restarts: u64,
}

#[derive(Debug)]
pub(crate) struct Cast {
    place: Place,
    seed: u64,
    warm_up: Duration,
    roles: Vec<Role>,
    lives: u64,
    pub(crate) deeds: Deeds,
}

/// A process that is there most of the time.
#[derive(Debug)]
struct Role {
    whom: Whom,
    actor: Option<Actor>,
    /// When it is started again.
    rises: Instant,
}

/// One life of it.
#[derive(Debug)]
pub(crate) struct Actor {
    child: Child,
    born: Instant,
    stopped_until: Option<Instant>,
    /// Whether it was stopped at any time since the last look.
    pub(crate) was_stopped: bool,
    pub(crate) leaves: bool,
    killed: bool,
    growth: Growth,
    pub(crate) held: Held,
}

impl Actor {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // It has not been waited for, so the number is still its own.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.map_or(Ok(()), |pid| Ok(kill_process(pid, signal)?))
    }
}

impl Cast {
    /// Nobody has started yet; [`turn`](Self::turn) starts them.
    pub(crate) fn new(place: &Place, seed: u64, renderers: u32, warm_up: Duration) -> Self {
        let rises = Instant::now();
        let all = std::iter::once(Whom::Main).chain((1..=renderers).map(Whom::Renderer));
        Self {
            place: place.clone(),
            seed,
            warm_up,
            roles: all.map(|whom| Role { whom, actor: None, rises }).collect(),
            lives: 0,
            deeds: Deeds::default(),
        }
    }

    pub(crate) fn actors(&self) -> impl Iterator<Item = (Whom, &Actor)> {
        self.roles.iter().filter_map(|role| Some((role.whom, role.actor.as_ref()?)))
    }

    pub(crate) fn main(&self) -> Option<&Actor> {
        self.actors().find(|(whom, _)| *whom == Whom::Main).map(|(_, actor)| actor)
    }

    pub(crate) fn with_pid(&self, pid: u32) -> Option<&Actor> {
        self.actors().map(|(_, actor)| actor).find(|actor| actor.pid() == pid)
    }

    pub(crate) fn act(&mut self, act: Act) -> io::Result<()> {
        let (Act::Kill(whom) | Act::Leave(whom) | Act::Stop(whom, _)) = act;
        let found = self.roles.iter_mut().filter(|role| role.whom == whom).find_map(|role| role.actor.as_mut());
        // Not there, or about to be gone: then nothing happens to it.
        let Some(actor) = found.filter(|actor| !actor.killed && !actor.leaves) else { return Ok(()) };
        match act {
            Act::Kill(_) => {
                actor.killed = true;
                self.deeds.kills += 1;
                actor.signal(Signal::KILL)
            }
            Act::Leave(_) => {
                actor.leaves = true;
                self.deeds.leaves += 1;
                actor.signal(Signal::TERM)
            }
            Act::Stop(_, pause) => {
                if actor.stopped_until.is_some() {
                    return Ok(());
                }
                actor.stopped_until = Some(Instant::now() + pause);
                actor.was_stopped = true;
                self.deeds.stops += 1;
                actor.signal(Signal::STOP)
            }
        }
    }

    /// Wakes who was stopped for long enough, notices who has ended, and starts who is due. `rest` says when one that
    /// has ended is started again, if it is. Returns what was wrong about the ends.
    pub(crate) fn turn(
        &mut self,
        janitor: &Janitor,
        mut rest: impl FnMut() -> Option<Duration>,
    ) -> io::Result<Vec<String>> {
        let now = Instant::now();
        let mut faults = Vec::new();
        for index in 0..self.roles.len() {
            let Some(role) = self.roles.get_mut(index) else { continue };
            let name = name(role.whom);
            if let Some(actor) = &mut role.actor {
                if actor.stopped_until.is_some_and(|until| until <= now) {
                    actor.stopped_until = None;
                    actor.signal(Signal::CONT)?;
                }
                if let Some(status) = actor.child.try_wait()? {
                    faults.extend(fault(actor, status).map(|fault| format!("{name} {fault}")));
                    faults.extend(actor.growth.faults().into_iter().map(|growth| format!("{name}: {growth}")));
                    role.actor = None;
                    role.rises = now;
                    if let Some(rest) = rest() {
                        role.rises += rest;
                    }
                }
            } else if role.rises <= now && rest().is_some() {
                let whom = role.whom;
                let actor = self.start(whom, janitor)?;
                if let Some(role) = self.roles.get_mut(index) {
                    role.actor = Some(actor);
                }
            }
        }
        Ok(faults)
    }

    /// Ends every stop.
    pub(crate) fn wake_all(&mut self) -> io::Result<()> {
        for actor in self.roles.iter_mut().filter_map(|role| role.actor.as_mut()) {
            if actor.stopped_until.take().is_some() {
                actor.signal(Signal::CONT)?;
            }
        }
        Ok(())
    }

    /// Measures what each process holds.
    pub(crate) fn measure(&mut self) {
        for actor in self.roles.iter_mut().filter_map(|role| role.actor.as_mut()) {
            // One that has just ended holds nothing.
            if let Ok(held) = Held::of(actor.child.id()) {
                actor.held = held;
                actor.growth.measured(actor.born.elapsed(), held);
            }
        }
    }

    /// What the processes hold too much of.
    pub(crate) fn growth(&self) -> Vec<String> {
        let of = |(whom, actor): (Whom, &Actor)| {
            actor.growth.faults().into_iter().map(|growth| format!("{}: {growth}", name(whom))).collect::<Vec<_>>()
        };
        self.actors().flat_map(of).collect()
    }

    /// The next look sees only stops from here on.
    pub(crate) fn looked(&mut self) {
        for actor in self.roles.iter_mut().filter_map(|role| role.actor.as_mut()) {
            actor.was_stopped = actor.stopped_until.is_some();
        }
    }

    fn start(&mut self, whom: Whom, janitor: &Janitor) -> io::Result<Actor> {
        self.lives += 1;
        if self.lives > self.roles.len() as u64 {
            self.deeds.restarts += 1;
        }
        let mut command = match whom {
            Whom::Main => {
                let mut command = memit("soak-main");
                command.arg("--life").arg(self.lives.to_string());
                command
            }
            Whom::Renderer(number) => {
                let mut command = memit("soak-renderer");
                command.arg("--name").arg(format!("{number}-{}", self.lives));
                command
            }
        };
        let child = command
            .arg("--directory")
            .arg(self.place.path())
            .arg("--seed")
            .arg(self.seed.to_string())
            .arg("--parent")
            .arg(process::id().to_string())
            .stdin(Stdio::null())
            .stdout(janitor.hold()?)
            .spawn()?;
        Ok(Actor {
            child,
            born: Instant::now(),
            stopped_until: None,
            was_stopped: false,
            leaves: false,
            killed: false,
            growth: Growth::new(self.warm_up),
            held: Held::default(),
        })
    }
}

/// No run leaves a process behind.
impl Drop for Cast {
    fn drop(&mut self) {
        for actor in self.roles.iter_mut().filter_map(|role| role.actor.as_mut()) {
            // It fails where the process has ended and been waited for.
            let _ = actor.child.kill();
            let _ = actor.child.wait();
        }
    }
}

pub(crate) fn name(whom: Whom) -> String {
    match whom {
        Whom::Main => "the main".into(),
        Whom::Renderer(number) => format!("renderer {number}"),
    }
}

/// What is wrong about that end, if anything.
fn fault(actor: &Actor, status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (_, Some(9)) if actor.killed => None,
        // It came before the signal.
        (Some(0), _) if actor.leaves || actor.killed => None,
        (Some(code), _) => Some(format!("ended by itself with exit code {code}")),
        (None, Some(signal)) => Some(format!("was killed by signal {signal}, and not by this run")),
        (None, None) => Some(format!("ended: {status}")),
    }
}
