//! Synchronous calls.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{sync::mpsc, thread, time::Duration};

use memit::{CallError, Channel, Disconnect, args};
use support::{Log, PATIENCE, Rig, Running, within_deadline};

const ADD: Channel<(i32, i32), i32> = Channel::new("add");
const UPPER: Channel<str, str> = Channel::new("upper");
const RESET: Channel<u32> = Channel::new("reset");
const COUNT: Channel<u32, u32> = Channel::new("count");

#[test]
fn a_call_brings_the_value_that_a_listener_sets() {
    within_deadline(|| {
        let rig = Rig::new();
        rig.main.on(ADD, |event, pair| {
            assert!(event.is_call());
            event.set_return_value(&(pair.0 + pair.1))
        });
        rig.main.on(UPPER, |event, text| event.set_return_value(&*text.to_uppercase()));
        rig.main.on("echo", |event, args| event.set_return_value(&memit::Value::from(args.len() as u64)));
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        let sum = renderer.send_sync(ADD, &(1, 2)).unwrap();
        assert_eq!(sum, 3);
        assert_eq!(sum.into_owned(), 3);
        assert_eq!(&*renderer.send_sync(UPPER, "abc").unwrap(), "ABC");
        assert_eq!(renderer.send_sync(UPPER, "").unwrap().into_owned(), "");
        assert_eq!(renderer.send_sync("echo", &args![null, [1, 2], {"a": 1}]).unwrap().as_u64(), Some(3));
        assert_eq!(renderer.send_sync_timeout(ADD, &(3, 4), PATIENCE).unwrap(), 7);
    });
}

#[test]
fn a_reply_may_be_kept_and_sent_to_another_thread() {
    within_deadline(|| {
        let rig = Rig::new();
        rig.main.on(UPPER, |event, text| event.set_return_value(&*text.to_uppercase()));
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        let kept: Vec<_> = (0..40).map(|n| renderer.send_sync(UPPER, &*format!("reply {n}")).unwrap()).collect();
        drop(renderer);
        thread::spawn(move || {
            for (n, reply) in kept.iter().enumerate() {
                assert_eq!(**reply, *format!("REPLY {n}"));
            }
        })
        .join()
        .unwrap();
    });
}

#[test]
fn the_first_value_wins_and_later_ones_do_no_harm() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let errors = log.clone();
        rig.main.on_error(move |error| errors.push(error.to_string()));
        for value in [10, 20, 30] {
            rig.main.on(COUNT, move |event, _| {
                event.set_return_value(&value)?;
                event.set_return_value(&(value + 1))
            });
        }
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        assert_eq!(renderer.send_sync(COUNT, &0).unwrap(), 10);
        assert_eq!(renderer.send_sync(COUNT, &0).unwrap(), 10);
        renderer.send(COUNT, &0).unwrap();
        assert_eq!(renderer.send_sync(COUNT, &0).unwrap(), 10, "setting a value for a mere message does nothing");
        assert!(log.take().is_empty());
    });
}

#[test]
fn a_call_without_a_value_says_why() {
    within_deadline(|| {
        let rig = Rig::new();
        rig.main.on_error(|_| {});
        rig.main.on(COUNT, |_, _| {});
        rig.main.on(UPPER, |_, text| {
            let _: u32 = text.parse()?;
            memit::ok()
        });
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        assert_eq!(renderer.send_sync(ADD, &(1, 2)).unwrap_err(), CallError::NoListener);
        assert_eq!(renderer.send_sync(COUNT, &1).unwrap_err(), CallError::NoReply);
        let failed = renderer.send_sync(UPPER, "x").unwrap_err();
        assert!(matches!(&failed, CallError::ReplyFailed(text) if text.contains("invalid digit")), "{failed}");
        assert_eq!(renderer.send_sync(UPPER, "7").unwrap_err(), CallError::NoReply);
        assert_eq!(renderer.send_sync("nobody", &args![]).unwrap_err(), CallError::NoListener);
    });
}

#[test]
fn a_channel_that_returns_nothing_is_answered_when_its_listeners_have_run() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<u32>::default());
        rig.main.on_error(|_| {});
        let ran = log.clone();
        rig.main.on(RESET, move |_, number| {
            ran.push(number.to_native());
            if *number == 13 { Err(memit::Failure::new("unlucky")) } else { Ok(()) }
        });
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        renderer.send_sync(RESET, &7).unwrap().into_owned();
        assert_eq!(log.take(), [7]);
        assert_eq!(renderer.send_sync(RESET, &13).unwrap_err(), CallError::ReplyFailed("unlucky".into()));
    });
}

#[test]
fn a_call_that_nobody_dispatches_times_out_and_its_late_answer_is_not_the_next_ones() {
    within_deadline(|| {
        let rig = Rig::with(|main| main.reply_slots(2));
        rig.main.on(COUNT, |event, number| event.set_return_value(&(number.to_native() + 1)));
        let renderer = rig.renderer();
        for number in 0..3 {
            let late = renderer.send_sync_timeout(COUNT, &number, Duration::from_millis(1));
            assert_eq!(late.unwrap_err(), CallError::Timeout);
        }
        let _running = Running::start(&rig.main);
        assert_eq!(renderer.send_sync(COUNT, &100).unwrap(), 101);
    });
}

#[test]
fn several_threads_call_at_once() {
    within_deadline(|| {
        let rig = Rig::new();
        rig.main.on(COUNT, |event, number| event.set_return_value(&(number.to_native() + 1)));
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        thread::scope(|scope| {
            for thread in 0..12 {
                let renderer = renderer.clone();
                scope.spawn(move || {
                    for call in 0..100 {
                        let number = thread * 1000 + call;
                        assert_eq!(renderer.send_sync(COUNT, &number).unwrap(), number + 1);
                    }
                });
            }
        });
    });
}

#[test]
fn a_thousand_messages_and_calls_arrive_in_the_order_in_which_they_were_made() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<u32>::default());
        let (sent, called) = (log.clone(), log.clone());
        rig.main.on(RESET, move |_, number| sent.push(number.to_native()));
        rig.main.on(COUNT, move |event, number| {
            called.push(number.to_native());
            event.set_return_value(&number.to_native())
        });
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        for number in 0..1000 {
            if number % 3 == 0 {
                assert_eq!(renderer.send_sync(COUNT, &number).unwrap(), number);
            } else {
                renderer.send(RESET, &number).unwrap();
            }
        }
        assert_eq!(renderer.send_sync(COUNT, &1000).unwrap(), 1000);
        assert_eq!(log.take(), (0..=1000).collect::<Vec<_>>());
    });
}

#[test]
fn main_calls_a_renderer() {
    within_deadline(|| {
        let rig = Rig::new();
        let (arrived, arrivals) = mpsc::channel();
        rig.main.on_connect(move |sender| arrived.send(sender.clone()));
        let _main_running = Running::start(&rig.main);
        let renderer = rig.renderer();
        renderer.on(ADD, |event, pair| event.set_return_value(&(pair.0 * pair.1)));
        let _renderer_running = Running::start(&renderer);
        let sender = arrivals.recv_timeout(PATIENCE).unwrap();
        assert_eq!(sender.send_sync(ADD, &(6, 7)).unwrap(), 42);
        assert_eq!(rig.main.renderers()[0].send_sync(ADD, &(2, 2)).unwrap(), 4);
        assert_eq!(sender.send_sync(UPPER, "x").unwrap_err(), CallError::NoListener);
    });
}

#[test]
fn a_call_to_a_peer_that_this_very_thread_dispatches_ends_at_once() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<CallError>::default());
        let renderer = rig.renderer();
        let (caller, errors) = (renderer.clone(), log.clone());
        rig.main.on(RESET, move |_, _| errors.push(caller.send_sync(ADD, &(1, 2)).unwrap_err()));
        renderer.send(RESET, &0).unwrap();
        rig.until(|| log.len() == 1);
        assert_eq!(log.take(), [CallError::WouldDeadlock]);
    });
}

#[test]
fn of_two_calls_that_cross_the_renderers_ends_and_the_mains_goes_through() {
    within_deadline(|| {
        let rig = Rig::new();
        let (told, tells) = mpsc::channel();
        let from_main = told.clone();
        rig.main.on(RESET, move |event, _| {
            let answer = event.sender().send_sync(UPPER, "from main").map(memit::Reply::into_owned);
            from_main.send(("main", answer))
        });
        rig.main.on(UPPER, |event, text| event.set_return_value(text));
        let _main_running = Running::start(&rig.main);
        let renderer = rig.renderer();
        renderer.on(UPPER, |event, text| event.set_return_value(text));
        // Both listeners call when both are sure to be inside one: main's because the renderer told it to, before it
        // called itself.
        renderer.on("begin", move |event, _| {
            event.reply(RESET, &0)?;
            let answer = event.sender().send_sync(UPPER, "from the renderer").map(memit::Reply::into_owned);
            told.send(("renderer", answer))?;
            memit::ok()
        });
        let _renderer_running = Running::start(&renderer);
        until_connected(&rig).send("begin", &args![]).unwrap();
        let answers = [tells.recv_timeout(PATIENCE).unwrap(), tells.recv_timeout(PATIENCE).unwrap()];
        for (who, answer) in answers {
            match who {
                "renderer" => assert_eq!(answer, Err(CallError::WouldDeadlock)),
                _ => assert_eq!(answer, Ok("from main".to_owned())),
            }
        }
    });
}

fn until_connected(rig: &Rig) -> memit::Sender {
    loop {
        if let Some(sender) = rig.main.renderers().pop() {
            return sender;
        }
        thread::yield_now();
    }
}

#[test]
fn calls_end_when_the_peer_goes() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderer = rig.renderer();
        let called = renderer.clone();
        let (calls, about_to_call) = mpsc::channel();
        let calling = thread::spawn(move || {
            calls.send(()).unwrap();
            called.send_sync(ADD, &(1, 2)).unwrap_err()
        });
        about_to_call.recv_timeout(PATIENCE).unwrap();
        let Rig { main, directory: _directory } = rig;
        drop(main);
        assert_eq!(calling.join().unwrap(), CallError::Disconnected(Disconnect::Left));
        assert_eq!(renderer.send_sync(ADD, &(1, 2)).unwrap_err(), CallError::Disconnected(Disconnect::Left));
    });
}

#[test]
fn calls_end_when_their_own_endpoint_is_shut_down() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderer = rig.renderer();
        let called = renderer.clone();
        let (calls, calling) = mpsc::channel();
        let caller = thread::spawn(move || {
            calls.send(()).unwrap();
            called.send_sync(ADD, &(1, 2)).unwrap_err()
        });
        calling.recv_timeout(PATIENCE).unwrap();
        renderer.shutdown();
        assert_eq!(caller.join().unwrap(), CallError::Disconnected(Disconnect::ShutDown));
    });
}
