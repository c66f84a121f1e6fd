//! One thread has the way to a peer to itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
    time::Duration,
};

use memit::{CallError, Channel, ExclusiveError, SendError};
use support::{Log, PATIENCE, Rig, Running, until, within_deadline};

const NUMBER: Channel<u64> = Channel::new("number");
const NOTE: Channel<str> = Channel::new("note");
const BULK: Channel<[u64]> = Channel::new("bulk");
const DOUBLE: Channel<u32, u32> = Channel::new("double");

fn heard(rig: &Rig) -> Log<String> {
    let log = Log::<String>::default();
    let [numbers, notes, bulk] = [(); 3].map(|()| log.clone());
    rig.main.on(NUMBER, move |_, number| numbers.push(number.to_string()));
    rig.main.on(NOTE, move |_, note| notes.push(note.to_owned()));
    rig.main.on(BULK, move |_, bulk_of| bulk.push(format!("{} of {}", bulk_of.len(), bulk_of[0])));
    log
}

#[test]
fn a_guard_sends_on_any_channel_any_size_in_order_and_then_the_others_come() {
    within_deadline(|| {
        let rig = Rig::new();
        let log = heard(&rig);
        let renderer = rig.renderer();
        thread::scope(|scope| {
            let mut guard = renderer.exclusive().unwrap();
            guard.send(NUMBER, &1).unwrap();
            let (kept_out, is_kept_out) = mpsc::channel();
            let sender = renderer.sender();
            scope.spawn(move || {
                assert!(matches!(sender.try_send(NOTE, "other"), Err(SendError::Full { .. })));
                kept_out.send(()).unwrap();
                sender.send(NOTE, "other").unwrap();
            });
            is_kept_out.recv_timeout(PATIENCE).unwrap();
            guard.send(BULK, &vec![7; 100_000]).unwrap();
            guard.try_send(NOTE, "a note").unwrap();
            guard.send_timeout(NUMBER, &2, PATIENCE).unwrap();
            drop(guard);
        });
        rig.until(|| log.len() == 5);
        assert_eq!(log.take(), ["1", "100000 of 7", "a note", "2", "other"]);
    });
}

#[test]
fn the_holder_sends_and_calls_by_the_guard_alone() {
    within_deadline(|| {
        let rig = Rig::new();
        let log = heard(&rig);
        let renderer = rig.renderer();
        let ticks = renderer.to(NUMBER).unwrap();
        let guard = renderer.exclusive().unwrap();
        assert_eq!(renderer.send(NUMBER, &1), Err(SendError::WouldDeadlock));
        assert_eq!(renderer.send(NOTE, "not announced"), Err(SendError::WouldDeadlock));
        assert_eq!(renderer.send(BULK, &vec![0; 100_000]), Err(SendError::WouldDeadlock));
        assert_eq!(ticks.try_send(&1), Err(SendError::WouldDeadlock));
        assert_eq!(renderer.send_sync(DOUBLE, &1).unwrap_err(), CallError::WouldDeadlock);
        assert_eq!(renderer.sender().loan(BULK, 5000).unwrap().commit(), Err(SendError::WouldDeadlock));
        assert_eq!(renderer.exclusive().unwrap_err(), ExclusiveError::WouldDeadlock);
        assert_eq!(ticks.exclusive().unwrap_err(), ExclusiveError::WouldDeadlock);
        drop(guard);
        ticks.send(&2).unwrap();
        rig.until(|| log.len() == 1);
        assert_eq!(log.take(), ["2"]);
    });
}

/// Sends while it is encoded, as nobody should.
struct Meddling<'a>(&'a memit::IpcRenderer, Cell<Option<SendError>>);

impl memit::EncodeAs<u64> for Meddling<'_> {
    fn encode_as(&self, _: &mut memit::encode::Encoder) -> Result<(), memit::EncodeError> {
        self.1.set(self.0.send(NUMBER, &0).err());
        panic!("as the test wants")
    }
}

#[test]
fn code_of_the_users_that_runs_under_the_guard_can_neither_hang_nor_keep_it() {
    within_deadline(|| {
        let rig = Rig::new();
        let log = heard(&rig);
        let renderer = rig.renderer();
        let meddling = Meddling(&renderer, Cell::new(None));
        let panicked = catch_unwind(AssertUnwindSafe(|| renderer.exclusive().unwrap().send(NUMBER, &meddling)));
        assert!(panicked.is_err());
        assert_eq!(meddling.1.take(), Some(SendError::WouldDeadlock));
        thread::scope(|scope| scope.spawn(|| renderer.send(NUMBER, &1)).join().unwrap()).unwrap();
        rig.until(|| log.len() == 1);
        assert_eq!(log.take(), ["1"]);
    });
}

#[test]
fn a_listener_streams_more_than_there_is_space_and_answers_its_call() {
    within_deadline(|| {
        const COUNT: u64 = 5000;
        let rig = Rig::with(|builder| builder.ring_capacity(4096));
        rig.main.on(DOUBLE, |event, number| {
            let mut guard = event.sender().exclusive().unwrap();
            for number in 0..COUNT {
                guard.send(NUMBER, &number).unwrap();
            }
            event.set_return_value(&(2 * number.to_native()))
        });
        let renderer = rig.renderer();
        let log = Log::<u64>::default();
        let numbers = log.clone();
        renderer.on(NUMBER, move |_, number| numbers.push(number.to_native()));
        let _main = Running::start(&rig.main);
        assert_eq!(renderer.send_sync(DOUBLE, &21).unwrap(), 42);
        until(|| renderer.run_once(PATIENCE), || log.len() as u64 == COUNT);
        assert!(log.take().into_iter().eq(0..COUNT));
    });
}

#[test]
fn what_a_listener_sends_while_another_thread_streams_is_queued_and_the_dispatch_goes_on() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderer = rig.renderer();
        let log = Log::<String>::default();
        let [notes, numbers] = [(); 2].map(|()| log.clone());
        renderer.on(NOTE, move |_, note| notes.push(note.to_owned()));
        renderer.on(NUMBER, move |_, number| numbers.push(number.to_string()));
        rig.main.on(DOUBLE, |event, number| {
            event.reply(NOTE, "queued").unwrap();
            assert_eq!(event.sender().exclusive().unwrap_err(), ExclusiveError::Held);
            event.set_return_value(&(2 * number.to_native()))
        });
        rig.until(|| !rig.main.renderers().is_empty());
        let to_renderer = rig.main.renderers().remove(0);
        let _main = Running::start(&rig.main);
        let mut guard = to_renderer.exclusive().unwrap();
        assert_eq!(renderer.send_sync(DOUBLE, &4).unwrap(), 8, "the main is not held up");
        guard.send(NUMBER, &1).unwrap();
        until(|| renderer.run_once(PATIENCE), || log.len() == 2);
        assert_eq!(log.take(), ["queued", "1"]);
        assert_eq!(renderer.send_sync(DOUBLE, &5).unwrap(), 10);
        drop(guard);
        until(|| renderer.run_once(PATIENCE), || log.len() == 1);
        assert_eq!(log.take(), ["queued"]);
    });
}

#[test]
fn a_broadcast_does_not_wait_for_who_streams_to_one_renderer() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderers = [rig.renderer(), rig.renderer()];
        rig.until(|| rig.main.renderers().len() == 2);
        let senders = rig.main.renderers();
        let log = Log::<String>::default();
        for renderer in &renderers {
            let notes = log.clone();
            renderer.on(NOTE, move |_, note| notes.push(note.to_owned()));
        }
        let _guard = senders[0].exclusive().unwrap();
        let failed = thread::scope(|scope| scope.spawn(|| rig.main.broadcast(NOTE, "to all")).join().unwrap());
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0.peer(), senders[0].peer());
        assert!(matches!(failed[0].1, SendError::Full { .. }));
        let failed = rig.main.broadcast(NOTE, "to all");
        assert!(matches!(&failed[..], [(_, SendError::WouldDeadlock)]), "by the holder itself");
        let other = renderers.iter().find(|renderer| renderer.sender().peer().id == senders[1].peer().id).unwrap();
        until(|| other.run_once(PATIENCE), || log.len() == 2);
    });
}

#[test]
fn a_guard_outlives_its_connection_and_says_so() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderer = rig.renderer();
        let numbers = renderer.to(NUMBER).unwrap();
        let mut guard = numbers.exclusive().unwrap();
        rig.main.shutdown();
        // Full until the end is noticed, or the end.
        let ended = loop {
            if let Err(error) = guard.send_timeout(&1, Duration::from_secs(1)) {
                break error;
            }
        };
        assert!(matches!(ended, SendError::Disconnected(_)), "{ended}");
        drop(guard);
        assert!(matches!(numbers.exclusive(), Err(ExclusiveError::Disconnected(_))));
        assert!(matches!(renderer.to(NOTE), Err(SendError::Disconnected(_))));
    });
}
