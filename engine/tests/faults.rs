//! Handlers that panic, peers that end or break the protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::*;
use memit_engine::{
    AlignedBytes, Announced, CallError, Disconnect, Handler, Incoming, Link, Patience, Port, SendError, Violation,
    WaitStrategy,
};

#[test]
fn a_handler_that_panics_at_an_arrival_or_an_end_loses_nobody_elses() {
    /// Panics at its first arrival and at its first end.
    #[derive(Default)]
    struct Panics {
        connected: usize,
        disconnected: usize,
    }
    impl Handler for Panics {
        fn connected(&mut self, _: &Arc<Link>) {
            self.connected += 1;
            assert_ne!(self.connected, 1, "as asked");
        }
        fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
            Ok(())
        }
        fn message(&mut self, _: Incoming<'_>) {}
        fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {
            self.disconnected += 1;
            assert_ne!(self.disconnected, 1, "as asked");
        }
    }
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let main = Port::bind("app", config(&dir, WaitStrategy::Park)).unwrap();
        let renderers = [0; 3].map(|_| Port::connect("app", config(&dir, WaitStrategy::Park)).unwrap());
        // The library's thread has taken in all three when it has served one that came later.
        let later = Port::bind("later", config(&dir, WaitStrategy::Park)).unwrap();
        drop(Port::connect("later", config(&dir, WaitStrategy::Park)).unwrap());
        drop(later);
        let mut handler = Panics::default();
        let turn = |handler: &mut Panics| {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut dispatch = main.dispatch().unwrap();
                dispatch.wait(None);
                dispatch.poll(16, handler);
            }));
            outcome.is_err()
        };
        let mut panics = 0;
        while handler.connected < 3 {
            panics += usize::from(turn(&mut handler));
        }
        drop(renderers);
        while handler.disconnected < 3 {
            panics += usize::from(turn(&mut handler));
        }
        assert_eq!(panics, 2);
    });
}

#[test]
fn the_end_of_the_peer_ends_every_wait() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            while link.send(CHANNEL, &[0; 500], Patience::Now).is_ok() {}
            thread::scope(|scope| {
                let (ready, readies) = mpsc::channel();
                let (ready_too, link) = (ready.clone(), &link);
                let sender = scope.spawn(move || {
                    ready.send(()).unwrap();
                    link.send(CHANNEL, &[0; 500], Patience::ByPolicy)
                });
                let caller = scope.spawn(move || {
                    ready_too.send(()).unwrap();
                    link.call(CHANNEL, b"", None, &mut AlignedBytes::new())
                });
                let dispatcher = scope.spawn(|| dispatch_to_the_end(&renderer, &mut Recorder::default()));
                readies.recv().unwrap();
                readies.recv().unwrap();
                main.shutdown();
                assert_eq!(sender.join().unwrap(), Err(SendError::Disconnected(Disconnect::Left)));
                assert_eq!(caller.join().unwrap().unwrap_err(), CallError::Disconnected(Disconnect::Left));
                dispatcher.join().unwrap();
            });
        });
    }
}

#[test]
fn what_was_published_before_the_end_is_still_delivered() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        for number in 0..10 {
            link.send(CHANNEL, &numbered(number, 40), Patience::Now).unwrap();
        }
        drop((link, renderer));
        let mut seen = Recorder::default();
        dispatch_until(&main, &mut seen, |seen| !seen.disconnected.is_empty());
        assert_eq!(seen.messages.len(), 10);
        assert_eq!(seen.disconnected[0].1, Disconnect::Left);
    });
}

#[test]
fn a_message_on_a_channel_that_was_not_announced_ends_the_connection() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        renderer.links()[0].send(77, b"", Patience::Now).unwrap();
        let mut seen = Recorder::default();
        dispatch_until(&main, &mut seen, |seen| !seen.disconnected.is_empty());
        assert!(matches!(&seen.disconnected[0].1, Disconnect::Violation(why) if why.contains("77")));
        assert!(seen.messages.is_empty());
    });
}

#[test]
fn a_listener_that_panics_leaves_the_port_sound() {
    struct Panics(usize);
    impl Handler for Panics {
        fn connected(&mut self, _: &Arc<Link>) {}
        fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
            Ok(())
        }
        fn message(&mut self, message: Incoming<'_>) {
            self.0 += 1;
            assert_ne!(message.bytes, b"panic", "as asked");
        }
        fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
    }
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        for bytes in [&b"panic"[..], b"next"] {
            link.send(CHANNEL, bytes, Patience::Now).unwrap();
        }
        let mut handler = Panics(0);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut dispatch = main.dispatch().unwrap();
            while handler.0 == 0 {
                dispatch.poll(16, &mut handler);
            }
        }));
        assert!(outcome.is_err());
        let mut dispatch = main.dispatch().unwrap();
        while handler.0 < 2 {
            dispatch.poll(16, &mut handler);
        }
        assert_eq!(handler.0, 2, "the frame that panicked is not delivered again");
    });
}

#[test]
fn the_descriptor_stays_readable_when_a_handler_panics_over_what_it_announced() {
    struct Panics(usize);
    impl Handler for Panics {
        fn connected(&mut self, _: &Arc<Link>) {}
        fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
            Ok(())
        }
        fn message(&mut self, _: Incoming<'_>) {
            self.0 += 1;
            assert_ne!(self.0, 1, "as asked");
        }
        fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
    }
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        while is_readable(&main, Duration::ZERO) {
            main.dispatch().unwrap().poll(16, &mut Recorder::default());
        }
        for _ in 0..3 {
            link.send(CHANNEL, b"", Patience::Now).unwrap();
        }
        let mut handler = Panics(0);
        while handler.0 < 3 {
            assert!(is_readable(&main, DEADLINE), "{} of 3 were handled", handler.0);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                main.dispatch().unwrap().poll(16, &mut handler);
            }));
        }
    });
}
