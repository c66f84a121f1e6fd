//! The thread that dispatches never waits: its frames queue up, in order and bounded, and go out as space appears.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use memit_engine::{
    AlignedBytes, Announced, Disconnect, Handler, Incoming, Link, Patience, Port, ReplyStatus, SendError, Violation,
    WaitStrategy, Wakeup,
};

#[test]
fn the_dispatching_thread_never_waits_and_its_frames_keep_their_order() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        let links = links_to_renderers(&main, 1);
        let count = 200u32;
        // One message makes main's listener send far more than a ring holds, while the renderer reads nothing.
        link.send(CHANNEL, b"go", Patience::ByPolicy).unwrap();
        let to = Arc::clone(&links[0]);
        let mut talker = Talker { to, count, sent: 0 };
        let mut dispatch = main.dispatch().unwrap();
        while talker.sent == 0 {
            dispatch.poll(1, &mut talker);
        }
        assert_eq!(talker.sent, count);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = Recorder::default();
                dispatch_until(&renderer, &mut seen, |seen| seen.messages.len() == count as usize);
                seen
            });
            while !reader.is_finished() {
                dispatch.wait(Some(Instant::now() + Duration::from_millis(1)));
                dispatch.poll(16, &mut talker);
            }
            for (number, (_, bytes)) in (0..count).zip(&reader.join().unwrap().messages) {
                assert_eq!(bytes, &numbered(number, 700));
            }
        });
    });
}

struct Talker {
    to: Arc<Link>,
    count: u32,
    sent: u32,
}

impl Handler for Talker {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }
    fn message(&mut self, _: Incoming<'_>) {
        for number in 0..self.count {
            self.to.send(CHANNEL, &numbered(number, 700), Patience::ByPolicy).unwrap();
            self.sent += 1;
        }
    }
    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

#[test]
fn the_dispatching_thread_announces_while_another_waits_to() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Park);
        let link = links_to_renderers(&main, 1).remove(0);
        while link.send(CHANNEL, &[0; 500], Patience::Now).is_ok() {}
        let schema = vec![b'x'; 5_000];
        let first = Announced { channel: 10, name: "first", message: &schema, ..ANNOUNCED };
        let second = Announced { channel: 11, name: "second", ..ANNOUNCED };
        thread::scope(|scope| {
            let waiting = scope.spawn(|| link.announce(&first, Patience::ByPolicy));
            let dispatch = main.dispatch().unwrap();
            link.announce(&second, Patience::ByPolicy).unwrap();
            link.send(11, b"from the dispatching thread", Patience::ByPolicy).unwrap();
            drop(dispatch);
            // The renderer stays until who waits has been told, whoever of the two goes on first.
            let reader = scope.spawn(|| {
                let mut seen = Recorder::default();
                dispatch_until(&renderer, &mut seen, |seen| seen.announced.len() == 3);
                seen
            });
            let mut nothing = Recorder::default();
            while !reader.is_finished() {
                let mut dispatch = main.dispatch().unwrap();
                dispatch.wait(Some(Instant::now() + Duration::from_millis(1)));
                dispatch.poll(16, &mut nothing);
            }
            waiting.join().unwrap().unwrap();
            assert!(reader.join().unwrap().disconnected.is_empty());
        });
    });
}

/// Sends `count` messages to `to` when it is called with `go`.
struct Relay {
    to: u64,
    count: u32,
    links: Vec<Arc<Link>>,
}

impl Handler for Relay {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }
    fn message(&mut self, message: Incoming<'_>) {
        let to = self.links.iter().find(|link| link.id() == self.to).unwrap();
        if message.bytes == b"go" {
            for number in 0..self.count {
                to.send(CHANNEL, &numbered(number, 500), Patience::ByPolicy).unwrap();
            }
        }
        message.link.reply(message.call.unwrap(), ReplyStatus::Value, b"").unwrap();
    }
    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

#[test]
fn the_backlog_of_a_peer_that_was_silent_for_long_goes_out_as_it_reads() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let dir = tempfile::tempdir().unwrap();
            let main = Port::bind("app", config(&dir, wait)).unwrap();
            let talks = Port::connect("app", config(&dir, wait)).unwrap();
            let listens = Port::connect("app", config(&dir, wait)).unwrap();
            let count = 200;
            let to = listens.links()[0].id();
            let link = link_to_main(&talks);
            let links = links_to_renderers(&main, 2);
            let dispatcher = {
                let main = main.clone();
                thread::spawn(move || {
                    let mut relay = Relay { to, count, links };
                    let mut dispatch = main.dispatch().unwrap();
                    while dispatch.wait(None) != Wakeup::ShutDown {
                        dispatch.poll(64, &mut relay);
                    }
                })
            };
            // Meanwhile main has slept, and looks at the silent one no more until it rings.
            for asked in [b""; 50].iter().map(|nothing| &nothing[..]).chain([&b"go"[..]]) {
                link.call(CHANNEL, asked, None, &mut AlignedBytes::new()).unwrap();
            }
            let mut seen = Recorder::default();
            dispatch_until(&listens, &mut seen, |seen| seen.messages.len() == count as usize);
            main.shutdown();
            dispatcher.join().unwrap();
        });
    }
}

#[test]
fn the_backlog_is_bounded() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut small = config(&dir, WaitStrategy::Adaptive);
        small.backlog_limit = 10_000;
        let main = Port::bind("app", small).unwrap();
        let renderer = Port::connect("app", config(&dir, WaitStrategy::Adaptive)).unwrap();
        let links = links_to_renderers(&main, 1);
        let _dispatch = main.dispatch().unwrap();
        let mut sent = 0;
        let refused = loop {
            match links[0].send(CHANNEL, &[1; 1000], Patience::ByPolicy) {
                Ok(()) => sent += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, SendError::Full { len: 1000 });
        assert!((16..40).contains(&sent), "{sent}");
        drop(renderer);
    });
}
