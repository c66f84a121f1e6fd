//! What a port does that shows from within the engine only.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod fences;
mod padding;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Handler, Incoming, Port, Wakeup};
use crate::channels::Announced;
use crate::config::{Config, WaitStrategy};
use crate::error::{Disconnect, Violation};
use crate::link::{Link, Patience};

const CHANNEL: u16 = 3;
const CHANNEL_OF_TESTS: Announced<'_> =
    Announced { channel: CHANNEL, name: "test", message: b"bytes", reply: b"bytes", error: b"" };
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Heard {
    messages: Vec<Vec<u8>>,
    /// How many messages had come before each end.
    ends: Vec<usize>,
}

impl Handler for Heard {
    fn connected(&mut self, _: &Arc<Link>) {}

    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn message(&mut self, message: Incoming<'_>) {
        self.messages.push(message.bytes.to_vec());
    }

    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {
        self.ends.push(self.messages.len());
    }
}

/// A main that has heard of the renderer's channel, and nothing else is in the ring.
fn pair(wait: WaitStrategy) -> (TempDir, Port, Port, Arc<Link>) {
    let dir = tempfile::tempdir().unwrap();
    let config =
        || Config { runtime_dir: Some(dir.path().join("run")), ring_capacity: 32 << 10, wait, ..Config::default() };
    let main = Port::bind("app", config()).unwrap();
    let renderer = Port::connect("app", config()).unwrap();
    let link = Arc::clone(&renderer.links()[0]);
    link.announce(&CHANNEL_OF_TESTS, Patience::ByPolicy).unwrap();
    link.send(CHANNEL, b"first", Patience::ByPolicy).unwrap();
    let mut heard = Heard::default();
    let mut dispatch = main.dispatch().unwrap();
    while dispatch.poll(64, &mut heard) == 0 {
        assert_eq!(dispatch.wait(Some(Instant::now() + DEADLINE)), Wakeup::Work);
    }
    drop(dispatch);
    (dir, main, renderer, link)
}
