//! What is measured, one file for each kind of traffic.

mod answer;
mod broadcast;
mod fan_in;
mod idle;
mod large;
mod pair;
mod pairs;
mod ring;
mod send;
mod stream;
mod sync;

use crate::Result;
use crate::message;
use crate::peer::Peer;
use crate::row::Row;
use crate::setting::Setting;

/// Takes the rows as they come.
pub type Report<'r> = dyn FnMut(Row) -> Result<()> + 'r;

/// Something that can be measured.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, with which its rows' names begin.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// The sizes that its messages can have, and which they are.
    sizes: (fn(usize) -> bool, &'static str),
    measure: fn(&Setting, &mut Report<'_>) -> Result<()>,
}

const MESSAGES: (fn(usize) -> bool, &str) = (message::has, "a multiple of 8 from 32 to 1048576");

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "ring",
        about: "round trip through two raw rings, spinning, without the rest of memit",
        sizes: (ring::has, "1 to 8176"),
        measure: ring::measure,
    },
    Scenario {
        name: "send",
        about: "send/on there and back, spinning, both sides inside run",
        sizes: MESSAGES,
        measure: send::spinning,
    },
    Scenario { name: "sync", about: "send_sync, spinning", sizes: MESSAGES, measure: sync::spinning },
    Scenario {
        name: "sync-park",
        about: "send_sync, both sides parked while they wait",
        sizes: MESSAGES,
        measure: sync::parked,
    },
    Scenario {
        name: "send-park",
        about: "send/on there and back, both sides parked while they wait",
        sizes: MESSAGES,
        measure: send::parked,
    },
    Scenario {
        name: "stream",
        about: "send one way, one thread; percentiles are those of the send",
        sizes: MESSAGES,
        measure: stream::alone,
    },
    Scenario {
        name: "stream-shared",
        about: "send one way, two threads on one connection; percentiles are those of the send",
        sizes: MESSAGES,
        measure: stream::shared,
    },
    Scenario {
        name: "large",
        about: "4 KiB to 64 MiB: lent blocks there and back under full trust, copies one way without, and by hand",
        sizes: (large::has, "a multiple of 4096 from 4096 to 67108864"),
        measure: large::measure,
    },
    Scenario {
        name: "fan-in",
        about: "1 to 64 renderers, connections of one process, that send to one main in turn; percentiles are those of \
                the time between two messages",
        sizes: MESSAGES,
        measure: fan_in::measure,
    },
    Scenario {
        name: "idle",
        about: "round trip with one renderer, parked, while others, connections of the same process, are idle; and the \
                CPU time of a main that has idle renderers only",
        sizes: MESSAGES,
        measure: idle::measure,
    },
    Scenario {
        name: "broadcast",
        about: "broadcast to 1 to 64 renderers, connections of one process, and one answer when all have it",
        sizes: MESSAGES,
        measure: broadcast::measure,
    },
    Scenario {
        name: "pairs",
        about: "1 to 8 pairs of processes at once, on two cores: send/on there and back, waiting in each of the three \
                ways, compared with the better of spinning and parking; and one pair that has a message each millisecond",
        sizes: MESSAGES,
        measure: pairs::measure,
    },
];

impl Scenario {
    /// Whether its messages can be `len` bytes long; if not, why.
    pub fn permits(&self, len: usize) -> std::result::Result<(), String> {
        let (has, which) = self.sizes;
        if has(len) {
            Ok(())
        } else {
            Err(format!("a message of {} has {which} bytes, found {len}; choose another --payload", self.name))
        }
    }

    /// Measures it, row by row.
    pub fn measure(&self, setting: &Setting, report: &mut Report<'_>) -> Result<()> {
        if let Some(len) = setting.payload {
            self.permits(len)?;
        }
        (self.measure)(setting, report).map_err(|error| format!("{}: {error}", self.name).into())
    }
}

/// What the peer process of a scenario does. It ends when it is killed, or when its main is gone.
pub(crate) fn peer(role: &str, peer: &Peer) -> Result<()> {
    match role {
        answer::ROLE => answer::peer(peer),
        ring::ROLE => ring::peer(peer),
        stream::ROLE => stream::peer(peer),
        large::ROLE => large::peer(peer),
        fan_in::ROLE => fan_in::peer(peer),
        idle::ROLE => idle::peer(peer),
        broadcast::ROLE => broadcast::peer(peer),
        pairs::DRIVER => pairs::driver(peer),
        pairs::PARTNER => pairs::partner(peer),
        _ => Err(format!("no scenario has a peer that is called {role}").into()),
    }
}
