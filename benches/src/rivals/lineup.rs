//! Who takes part.

use super::iceoryx2::PublishSubscribe;
use super::iceoryx2::request::RequestResponse;
use super::memit::ring::{ExclusiveRings, Rings};
use super::memit::{CALLS, EXCLUSIVE, LOAN, Memit, SEND};
use super::threads::{Guarded, Rtrb, Shared, Threads};
use super::unix_stream::{Sockets, Stream};
use super::{Place, Rival, Wait, Work};
use super::{ipc_channel, pipe, player, raw_sync, unix_json, unix_seqpacket};
use crate::Result;

/// A candidate.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name, for reports and for arguments.
    pub name: &'static str,
    /// What it is, in some words.
    pub what: &'static str,
    /// How it spins.
    pub spins: Option<&'static str>,
    /// How it sleeps.
    pub sleeps: Option<&'static str>,
    /// What it is a way to do.
    pub works: &'static [Work],
    /// What the host's process does.
    pub host: fn(&'static str, &Place) -> Result<()>,
    /// What the guest's process does.
    pub guest: fn(&Place) -> Result<()>,
}

impl Entry {
    const fn new<R: Rival>(name: &'static str, what: &'static str) -> Self {
        let (host, guest) = (player::host::<R>, player::guest::<R>);
        Self { name, what, spins: None, sleeps: None, works: &[Work::Trip], host, guest }
    }

    const fn threads<T: Threads>(name: &'static str, what: &'static str) -> Self {
        let (host, guest) = (player::both::<T>, player::nobody);
        Self { name, what, spins: Some("polls"), sleeps: None, works: &[Work::Stream], host, guest }
    }

    const fn spins(self, how: &'static str) -> Self {
        Self { spins: Some(how), ..self }
    }

    const fn sleeps(self, how: &'static str) -> Self {
        Self { sleeps: Some(how), ..self }
    }

    const fn streams(self) -> Self {
        Self { works: &[Work::Trip, Work::Stream], ..self }
    }

    const fn only_streams(self) -> Self {
        Self { works: &[Work::Stream], ..self }
    }

    /// How it waits, if it can wait so.
    #[must_use]
    pub fn waits(&self, wait: Wait) -> Option<&'static str> {
        match wait {
            Wait::Spin => self.spins,
            Wait::Block => self.sleeps,
        }
    }

    /// Whether it can do that.
    #[must_use]
    pub fn does(&self, work: Work, wait: Wait) -> bool {
        self.waits(wait).is_some() && self.works.contains(&work)
    }
}

/// All candidates between two processes, in the order of reports.
pub const PROCESSES: [Entry; 15] = [
    Entry::new::<Rings>("memit-ring", "memit's raw ring: the message is copied in and out").spins("polls").streams(),
    Entry::new::<ExclusiveRings>("memit-exclusive", "memit's raw ring, its sender being the ring's only one")
        .spins("polls")
        .only_streams(),
    Entry::new::<Memit<SEND>>("memit-send", "memit `send`/`on` on a channel of bytes: copied in and out")
        .spins("`WaitStrategy::Spin`")
        .sleeps("`WaitStrategy::Park`")
        .streams(),
    Entry::new::<Memit<EXCLUSIVE>>(
        "memit-guard",
        "memit `send` by the guard of the channel (`exclusive`), and `on`: copied in and out",
    )
    .spins("`WaitStrategy::Spin`")
    .sleeps("`WaitStrategy::Park`")
    .only_streams(),
    Entry::new::<Memit<CALLS>>("memit-call", "memit `send_sync` on a channel of bytes that returns bytes")
        .spins("`WaitStrategy::Spin`")
        .sleeps("`WaitStrategy::Park`"),
    Entry::new::<Memit<LOAN>>("memit-loan", "memit `loan` under full trust: made and read in place, edges only")
        .spins("`WaitStrategy::Spin`")
        .sleeps("`WaitStrategy::Park`"),
    Entry::new::<PublishSubscribe<false>>("iceoryx2-copy", "iceoryx2 publish/subscribe: copied in, read in place")
        .spins("`receive` in a loop")
        .sleeps("an event service")
        .streams(),
    Entry::new::<PublishSubscribe<true>>(
        "iceoryx2-loan",
        "iceoryx2 publish/subscribe: made and read in place, edges only",
    )
    .spins("`receive` in a loop")
    .sleeps("an event service"),
    Entry::new::<RequestResponse>("iceoryx2-request", "iceoryx2 request/response: copied in, read in place")
        .spins("`receive` in a loop")
        .sleeps("an event service"),
    Entry::new::<raw_sync::Events>("raw-sync", "raw_sync events on shared_memory: copied in, read in place")
        .spins("`BusyEvent`")
        .sleeps("`Event`"),
    Entry::new::<ipc_channel::IpcChannel>("ipc-channel", "servo's ipc-channel, its channel of bytes")
        .spins("`try_recv` in a loop")
        .sleeps("`recv`")
        .streams(),
    Entry::new::<unix_seqpacket::Sockets>("unix-seqpacket", "a Unix seqpacket socket, a packet a message")
        .spins("calls that do not block, in a loop")
        .sleeps("calls that block")
        .streams(),
    Entry::new::<Sockets<Stream>>("unix-stream", "a Unix stream socket, a `write` a message")
        .spins("calls that do not block, in a loop")
        .sleeps("calls that block")
        .streams(),
    Entry::new::<pipe::Pipes>("pipe", "two pipes, a `write` a message")
        .spins("calls that do not block, in a loop")
        .sleeps("calls that block")
        .streams(),
    Entry::new::<Sockets<unix_json::Lines>>("unix-json", "a Unix stream socket with lines of JSON by serde_json")
        .spins("calls that do not block, in a loop")
        .sleeps("calls that block")
        .streams(),
];

/// Those between two threads of one process.
pub const THREADS: [Entry; 3] = [
    Entry::threads::<Shared>("thread-ring", "memit's raw ring between two threads"),
    Entry::threads::<Guarded>(
        "thread-exclusive",
        "memit's raw ring between two threads, its sender being the only one",
    ),
    Entry::threads::<Rtrb>("thread-rtrb", "rtrb's ring between two threads"),
];

/// All candidates.
pub fn all() -> impl Iterator<Item = Entry> {
    PROCESSES.into_iter().chain(THREADS)
}

/// The candidate of that name.
pub fn named(name: &str) -> Result<Entry> {
    all().find(|entry| entry.name == name).ok_or_else(|| format!("there is no candidate `{name}`").into())
}
