//! What a run prints: a line a second, and a verdict.

use std::time::Duration;

use serde_json::json;

use super::{
    cast::{Cast, Deeds},
    held::Held,
    plan::Whom,
    scene::Totals,
};
use crate::command::demo::report::grouped;

/// How a run stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) elapsed: Duration,
    pub(crate) totals: Totals,
    pub(crate) deeds: Deeds,
    /// Messages in the last second.
    pub(crate) rate: u64,
}

impl Standing {
    pub(crate) fn text(&self, cast: &Cast) -> String {
        let Self { elapsed, totals, deeds, rate } = self;
        let mut line = format!(
            "{:5} s  {} messages  {} MB  {} calls  {}/s  {} kills  {} leaves  {} stops  {} restarts",
            elapsed.as_secs(),
            grouped(totals.messages),
            grouped(totals.bytes / 1_000_000),
            grouped(totals.calls),
            grouped(*rate),
            deeds.kills,
            deeds.leaves,
            deeds.stops,
            deeds.restarts
        );
        for (whom, held) in lasting(cast) {
            line.push_str(&format!(
                "  {whom}: {} fds {} maps {} MiB rss {} MiB shm",
                held.descriptors,
                held.maps,
                held.resident >> 20,
                held.shared >> 20
            ));
        }
        line
    }

    pub(crate) fn json(&self, cast: &Cast) -> String {
        let held = lasting(cast).map(|(whom, held)| {
            let held = json!({
                "descriptors": held.descriptors,
                "maps": held.maps,
                "resident_bytes": held.resident,
                "shared_bytes": held.shared,
            });
            (whom.to_owned(), held)
        });
        let mut object = self.object();
        object["processes"] = held.collect::<serde_json::Map<_, _>>().into();
        object.to_string()
    }

    fn object(&self) -> serde_json::Value {
        let Self { elapsed, totals, deeds, rate } = self;
        json!({
            "seconds": elapsed.as_secs(),
            "messages": totals.messages,
            "bytes": totals.bytes,
            "calls": totals.calls,
            "refused": totals.refused,
            "retained": totals.retained,
            "connections": totals.connections,
            "messages_per_second": rate,
            "kills": deeds.kills,
            "leaves": deeds.leaves,
            "stops": deeds.stops,
            "restarts": deeds.restarts,
        })
    }
}

/// The processes that are there for long.
fn lasting(cast: &Cast) -> impl Iterator<Item = (&'static str, Held)> {
    cast.actors().filter_map(|(whom, actor)| match whom {
        Whom::Main => Some(("main", actor.held)),
        Whom::Renderer(1) => Some(("renderer 1", actor.held)),
        Whom::Renderer(_) => None,
    })
}

/// What came of it.
pub(crate) struct Verdict<'v> {
    pub(crate) standing: &'v Standing,
    pub(crate) seed: u64,
    pub(crate) faults: &'v [String],
    pub(crate) signal: Option<i32>,
}

impl Verdict<'_> {
    pub(crate) fn text(&self) -> String {
        let Self { standing, seed, faults, signal } = self;
        let Standing { elapsed, totals, deeds, .. } = standing;
        let what = if faults.is_empty() {
            "ok: nothing lost, doubled, out of order, garbled, stuck or leaked"
        } else {
            "failed"
        };
        let so_far = signal.map_or_else(String::new, |signal| format!(" before signal {signal} came"));
        format!(
            "{what}{so_far}; seed {seed}, {} s, {} messages, {} bytes, {} calls, {} retained, {} connections, {} kills, {} \
             leaves, {} stops, {} restarts",
            elapsed.as_secs(),
            grouped(totals.messages),
            grouped(totals.bytes),
            grouped(totals.calls),
            grouped(totals.retained),
            grouped(totals.connections),
            deeds.kills,
            deeds.leaves,
            deeds.stops,
            deeds.restarts
        )
    }

    pub(crate) fn json(&self) -> String {
        let mut object = self.standing.object();
        object["ok"] = self.faults.is_empty().into();
        object["seed"] = self.seed.into();
        object["faults"] = self.faults.into();
        object["signal"] = self.signal.into();
        object.to_string()
    }
}
