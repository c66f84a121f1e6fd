//! A listener that panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use memit::{CallError, Channel, RunError};
use support::{Log, PATIENCE, Rig, Running, unexpected, within_deadline};

const NOTE: Channel<str> = Channel::new("note");
const DOUBLE: Channel<u32, u32> = Channel::new("double");

#[test]
fn the_panic_goes_on_in_the_dispatching_thread_and_the_next_messages_are_heard() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let before = log.clone();
        rig.main.on(NOTE, move |_, text| before.push(format!("before {text}")));
        rig.main.on(NOTE, |_, text| assert_ne!(text, "b", "as the test wants"));
        let after = log.clone();
        rig.main.on(NOTE, move |_, text| after.push(format!("after {text}")));
        let renderer = rig.renderer();
        for text in ["a", "b", "c"] {
            renderer.send(NOTE, text).unwrap();
        }
        let panic = catch_unwind(AssertUnwindSafe(|| rig.until(|| false))).unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains("as the test wants"));
        assert_eq!(log.take(), ["before a", "after a", "before b"], "the panic ends the emit");
        rig.until(|| log.len() == 2);
        assert_eq!(log.take(), ["before c", "after c"], "the listener that panicked is still there");
        assert_eq!(rig.main.listener_count(NOTE), 3);
    });
}

#[test]
fn the_caller_is_told_and_the_connection_stays_sound() {
    within_deadline(|| {
        let rig = Rig::new();
        rig.main.on(DOUBLE, |event, number| {
            let number = number.to_native();
            let doubled = number.checked_mul(2).expect("too large to double");
            event.set_return_value(&doubled)
        });
        let (panicked, panics) = mpsc::channel();
        let main = rig.main.clone();
        let dispatching = thread::spawn(move || {
            loop {
                match catch_unwind(AssertUnwindSafe(|| main.run())) {
                    Ok(ended) => return ended,
                    Err(_) => panicked.send(()).unwrap(),
                }
            }
        });
        let renderer = rig.renderer();
        for round in 0..10 {
            assert_eq!(renderer.send_sync(DOUBLE, &round).unwrap(), 2 * round);
            let error = renderer.send_sync(DOUBLE, &u32::MAX).unwrap_err();
            assert_eq!(error, CallError::ListenerPanicked("too large to double".into()));
            panics.recv_timeout(PATIENCE).unwrap();
        }
        rig.main.shutdown();
        assert_eq!(dispatching.join().unwrap(), Ok::<_, RunError>(()));
    });
}

#[test]
fn a_value_that_was_set_before_the_panic_is_the_answer() {
    within_deadline(|| {
        let rig = Rig::new();
        rig.main.on(DOUBLE, |event, number| event.set_return_value(&(number.to_native() * 2)));
        rig.main.once(DOUBLE, |_, _| unexpected("as the test wants"));
        let main = rig.main.clone();
        let dispatching = thread::spawn(move || main.run());
        let renderer = rig.renderer();
        assert_eq!(renderer.send_sync(DOUBLE, &4).unwrap(), 8);
        assert!(dispatching.join().is_err());
        let _running = Running::start(&rig.main);
        assert_eq!(renderer.send_sync(DOUBLE, &5).unwrap(), 10);
    });
}

/// Panics when it is dropped, and tells.
struct PanicsToo(mpsc::Sender<()>);

impl Drop for PanicsToo {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
        unexpected("the drop, as the test wants");
    }
}

#[test]
fn a_removed_listener_that_panics_when_dropped_does_not_end_a_process_that_unwinds_already() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let (dropped, drops) = mpsc::channel();
        let gone = [(); 2].map(|()| {
            let panics = PanicsToo(dropped.clone());
            rig.main.on("other", move |_, _| {
                let _panics = &panics;
            })
        });
        rig.main.once(NOTE, move |event, _| {
            for id in gone {
                event.emitter().off(id);
            }
            unexpected("the listener, as the test wants");
        });
        let heard = log.clone();
        rig.main.on(NOTE, move |_, text| heard.push(text));
        let renderer = rig.renderer();
        renderer.send(NOTE, "a").unwrap();
        renderer.send(NOTE, "b").unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| rig.until(|| false))).unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), "the listener, as the test wants");
        assert_eq!(drops.try_iter().count(), 2);
        rig.until(|| log.len() == 1);
        assert_eq!(log.take(), ["b"]);
    });
}

#[test]
fn listeners_for_connections_and_errors_may_panic_too() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        rig.main.on_connect(|_| unexpected("on connect"));
        rig.main.on_error(|_| unexpected("on error"));
        rig.main.on_disconnect(|_, _| unexpected("on disconnect"));
        rig.main.on(NOTE, |_, _| Err::<(), _>(memit::Failure::new("to have an error")));
        let heard = log.clone();
        rig.main.on("heard", move |_, args| heard.push(args.to_string()));
        let panics = || {
            let panic = catch_unwind(AssertUnwindSafe(|| rig.until(|| false))).unwrap_err();
            panic.downcast_ref::<String>().unwrap().clone()
        };
        let renderer = rig.renderer();
        renderer.send(NOTE, "a").unwrap();
        renderer.send("heard", &memit::args![1]).unwrap();
        assert_eq!(panics(), "on connect");
        assert_eq!(panics(), "on error");
        rig.until(|| log.len() == 1);
        drop(renderer);
        assert_eq!(panics(), "on disconnect");
        assert!(rig.main.renderers().is_empty());
    });
}
