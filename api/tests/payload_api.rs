//! Payloads that are too large for a frame, lent, kept beyond the listener, encoded where they go.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use memit::{
    CallError, Channel, EncodeError, Payload, Retained, ReturnError, SendError, Sender, Trust, Value, args,
    encode::{Bound, Encoded, Encoder, encode_to, with_encoded, with_encoded_or_sized},
};
use memit_engine::AlignedBytes;
use support::{Log, PATIENCE, Rig, Running, within_deadline};

const BYTES: Channel<[u8], [u8]> = Channel::new("bytes");
const NUMBERS: Channel<[f64]> = Channel::new("numbers");
const NAMES: Channel<Vec<String>, Vec<String>> = Channel::new("names");
const TEXT: Channel<str, str> = Channel::new("text");
const UNSTEADY: Channel<Unsteady, Unsteady> = Channel::new("unsteady");

/// Larger than any frame of the default ring.
const LARGE: usize = 300_000;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + len) % 251).unwrap()).collect()
}

/// What a receiver needs to keep payloads in the sender's memory rather than copies of them.
#[allow(unsafe_code)]
fn full_trust() -> Trust {
    // SAFETY: both ends are this test, which keeps the protocol.
    unsafe { Trust::full() }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("a name that is long enough, number {at}")).collect()
}

/// Ordinary, but for its own way to be encoded: each time `grows` bytes more.
#[memit::message]
#[derive(Debug)]
struct Unsteady {
    text: String,
}

struct Growing {
    len: usize,
    grows: usize,
    times: AtomicUsize,
}

impl Growing {
    fn new(len: usize, grows: usize) -> Self {
        Self { len, grows, times: AtomicUsize::new(0) }
    }
}

impl memit::EncodeAs<Unsteady> for Growing {
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        let text = "m".repeat(self.len + self.grows * self.times.fetch_add(1, Ordering::Relaxed));
        Unsteady { text }.encode(out)
    }
}

/// What the listener was handed last.
type Slot<T> = Arc<Mutex<Vec<Retained<T>>>>;

fn retaining<T>(rig: &Rig, channel: Channel<T, T>) -> Slot<T>
where
    T: Payload + ?Sized + 'static,
    Retained<T>: Send,
{
    let slot = Slot::<T>::default();
    let keep = Arc::clone(&slot);
    rig.main.on(channel, move |event, _| keep.lock().unwrap().push(event.retain()));
    slot
}

#[test]
fn a_retained_payload_outlives_its_listener_the_connection_and_main_in_any_thread() {
    within_deadline(|| {
        let rig = Rig::new();
        let (kept, names_kept) = (retaining(&rig, BYTES), retaining(&rig, NAMES));
        let renderer = rig.renderer();
        let sizes = [0, 1, 48, 5000, 32_752, 32_753, LARGE];
        for size in sizes {
            renderer.send(BYTES, &bytes(size)).unwrap();
            // What comes later must not write over what is kept.
            renderer.send(NAMES, &names(size / 100)).unwrap();
        }
        rig.until(|| names_kept.lock().unwrap().len() == sizes.len());
        renderer.shutdown();
        rig.until(|| rig.main.renderers().is_empty());
        rig.main.shutdown();
        drop(rig);
        let kept = std::mem::take(&mut *kept.lock().unwrap());
        let names_kept = std::mem::take(&mut *names_kept.lock().unwrap());
        thread::spawn(move || {
            for ((kept, listed), size) in kept.into_iter().zip(names_kept).zip(sizes) {
                let clone = kept.clone();
                assert_eq!(kept, *bytes(size));
                drop(kept);
                assert_eq!(clone.into_owned(), bytes(size));
                assert!(listed.iter().zip(names(size / 100)).all(|(one, other)| *one == *other));
                assert_eq!(listed.into_owned(), names(size / 100));
            }
        })
        .join()
        .unwrap();
    });
}

#[test]
fn several_listeners_retain_one_payload() {
    within_deadline(|| {
        let rig = Rig::new();
        let slots = [retaining(&rig, BYTES), retaining(&rig, BYTES)];
        let seen = Arc::new(Mutex::new(Vec::new()));
        let addresses = Arc::clone(&seen);
        rig.main.on(BYTES, move |event, _| addresses.lock().unwrap().push(event.retain().as_ptr().addr()));
        let renderer = rig.renderer();
        for (round, size) in [10, 5000, LARGE].into_iter().enumerate() {
            renderer.send(BYTES, &bytes(size)).unwrap();
            rig.until(|| seen.lock().unwrap().len() == round + 1);
            let [one, other] = slots.each_ref().map(|slot| slot.lock().unwrap().pop().unwrap());
            assert_eq!(one, *bytes(size));
            assert_eq!(one.as_ptr(), other.as_ptr(), "they share it");
            assert_eq!(one.as_ptr().addr(), seen.lock().unwrap()[round]);
            drop(one);
            assert_eq!(other, *bytes(size));
        }
    });
}

#[test]
fn a_listener_of_other_types_than_the_retaining_one_takes_nothing_from_it() {
    const AS_VALUES: Channel<Vec<u8>> = Channel::new("typed");
    const AS_NAMES: Channel<Vec<String>> = Channel::new("typed");
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let (one, other) = (log.clone(), log.clone());
        rig.main.on(AS_VALUES, move |event, _| one.push(format!("{:?}", event.retain().len())));
        rig.main.on(AS_NAMES, move |event, _| other.push(format!("{:?}", event.retain().as_slice())));
        let renderer = rig.renderer();
        renderer.send(AS_VALUES, &vec![1; 9]).unwrap();
        renderer.send(AS_NAMES, &names(0)).unwrap();
        rig.until(|| log.len() == 2);
        assert_eq!(log.take(), ["9", "[]"]);
    });
}

#[test]
fn a_retained_call_is_answered_later_than_its_payload_is_dropped_or_before() {
    within_deadline(|| {
        let rig = Rig::new();
        let kept = retaining(&rig, BYTES);
        rig.main.on(BYTES, |event, bytes| event.set_return_value(bytes));
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        for size in [100, LARGE] {
            let reply = renderer.send_sync(BYTES, &bytes(size)).unwrap();
            assert_eq!(kept.lock().unwrap().pop().unwrap(), *reply);
        }
    });
}

#[test]
fn a_payload_reply_is_kept_beyond_the_connection() {
    within_deadline(|| {
        let rig = Rig::new();
        rig.main.on(BYTES, |event, bytes| event.set_return_value(bytes));
        rig.main.on(NAMES, |event, names| event.set_return_value(&<Vec<String> as Payload>::own(names)));
        rig.main.on("args", |event, args| event.set_return_value(&Value::Array(<memit::Args as Payload>::own(args).0)));
        let running = Running::start(&rig.main);
        let renderer = rig.renderer();
        let sizes = [0, 10, 32_700, 32_736, 32_737, 32_752, 32_753, LARGE];
        let replies: Vec<_> = sizes.map(|size| renderer.send_sync(BYTES, &bytes(size)).unwrap()).into();
        let listed: Vec<_> = sizes.map(|size| renderer.send_sync(NAMES, &names(size / 20)).unwrap()).into();
        let sent = args![[1, 2, 3], "m".repeat(LARGE)];
        assert_eq!(renderer.send_sync("args", &sent).unwrap().into_owned(), Value::Array(sent.0));
        drop(running);
        renderer.shutdown();
        drop(renderer);
        thread::spawn(move || {
            for ((reply, listed), size) in replies.into_iter().zip(listed).zip(sizes) {
                assert_eq!(reply, *bytes(size));
                assert_eq!(listed.into_owned(), names(size / 20));
            }
        })
        .join()
        .unwrap();
    });
}

#[test]
fn a_lent_payload_is_filled_in_and_committed() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<Vec<f64>>::default());
        let heard = log.clone();
        rig.main.on(NUMBERS, move |_, numbers| heard.push(numbers));
        let renderer = rig.renderer();
        for len in [0, 1, 7, 4000, 4094, 4095, 100_000] {
            let mut loan = renderer.sender().loan(NUMBERS, len).unwrap();
            assert_eq!(loan.len(), len);
            for (at, number) in (0u32..).zip(loan.iter_mut()) {
                *number = f64::from(at) / 2.0;
            }
            // From another thread: the loan goes where its sender goes.
            thread::scope(|scope| scope.spawn(|| loan.commit()).join()).unwrap().unwrap();
            rig.until(|| log.len() == 1);
            let expected: Vec<_> = (0u32..).take(len).map(|at| f64::from(at) / 2.0).collect();
            assert_eq!(log.take(), [expected]);
        }
    });
}

#[test]
fn a_lent_payload_that_is_dropped_is_not_sent_and_lent_again() {
    within_deadline(|| {
        let (rig, log) = (Rig::with(|main| main.arena_limit(4 << 20)), Log::<Vec<f64>>::default());
        let heard = log.clone();
        rig.main.on(NUMBERS, move |_, numbers| heard.push(numbers));
        let renderer = rig.builder().arena_limit(4 << 20).connect("app").unwrap();
        // Many times what may be lent at once.
        for _ in 0..100 {
            let mut loan = renderer.sender().try_loan(NUMBERS, LARGE).unwrap();
            loan[LARGE - 1] = 1.0;
        }
        renderer.send(NUMBERS, &[2.0]).unwrap();
        rig.until(|| log.len() == 1);
        assert_eq!(log.take(), [[2.0]]);
    });
}

#[test]
fn a_lent_payload_too_large_for_any_memory_is_an_error() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderer = rig.builder().message_limit(1 << 20).connect("app").unwrap();
        let max = renderer.sender().max_message();
        assert_eq!(max, 1 << 20);
        let refused = |len: usize| renderer.sender().loan(NUMBERS, len).unwrap_err();
        assert_eq!(refused(usize::MAX), SendError::TooLarge { len: usize::MAX, max });
        assert_eq!(refused(usize::MAX / 8 + 1), SendError::TooLarge { len: usize::MAX, max });
        assert_eq!(refused(usize::MAX / 8), SendError::TooLarge { len: usize::MAX / 8 * 8, max });
        assert_eq!(refused(max / 8 + 1), SendError::TooLarge { len: max + 8, max });
        assert_eq!(renderer.sender().loan(NUMBERS, max / 8).unwrap().len(), max / 8);
    });
}

#[test]
fn a_payload_loan_outlives_the_connection_and_is_not_committed_then() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderer = rig.renderer();
        let sender = renderer.sender().clone();
        let mut loan = sender.loan(NUMBERS, LARGE).unwrap();
        renderer.shutdown();
        drop(renderer);
        loan.fill(1.5);
        assert!(loan.iter().all(|number| *number == 1.5));
        assert!(matches!(loan.commit(), Err(SendError::Disconnected(_))));
        assert!(matches!(sender.loan(NUMBERS, 1), Err(SendError::Disconnected(_))));
    });
}

#[test]
fn payload_limits_are_those_of_message_limit_whatever_carries_the_message() {
    within_deadline(|| {
        let rig = Rig::with(|main| main.message_limit(200_000));
        rig.main.on(BYTES, |event, bytes| event.set_return_value(&bytes.repeat(2)));
        let names_back = |event: &mut memit::Event<'_, _, Vec<String>>, listed: &<Vec<String> as Payload>::View| {
            event.set_return_value(&names(listed.len() * 2))
        };
        rig.main.on(NAMES, names_back);
        let errors = Log::<String>::default();
        let reported = errors.clone();
        rig.main.on_error(move |error| reported.push(error.to_string()));
        let running = Running::start(&rig.main);
        let renderer = rig.builder().message_limit(200_000).connect("app").unwrap();
        assert_eq!(renderer.sender().max_message(), 200_000);

        let error = renderer.send(BYTES, &bytes(200_001)).unwrap_err();
        assert_eq!(error, SendError::TooLarge { len: 200_001, max: 200_000 });
        assert!(error.to_string().contains("message_limit"), "{error}");
        let error = renderer.send_sync(BYTES, &bytes(200_001)).unwrap_err();
        assert_eq!(error, CallError::TooLarge { len: 200_001, max: 200_000 });
        let error = renderer.send(NAMES, &names(5000)).unwrap_err();
        let len = with_encoded(&names(5000), <[u8]>::len).unwrap();
        assert_eq!(error, SendError::TooLarge { len, max: 200_000 });
        assert_eq!(renderer.send_sync(NAMES, &names(5000)).unwrap_err(), CallError::TooLarge { len, max: 200_000 });

        let error = renderer.send_sync(BYTES, &bytes(100_001)).unwrap_err();
        assert!(matches!(&error, CallError::ReplyFailed(text) if text.contains("200002")), "{error}");
        let len = with_encoded(&names(5000), <[u8]>::len).unwrap();
        let error = renderer.send_sync(NAMES, &names(2500)).unwrap_err();
        assert!(matches!(&error, CallError::ReplyFailed(text) if text.contains(&len.to_string())), "{error}");
        assert_eq!(renderer.send_sync(BYTES, &bytes(100_000)).unwrap().len(), 200_000);
        drop(running);
        assert_eq!(errors.take().len(), 2);
    });
}

/// The memory for large payloads is used up by what the receiver keeps: who waits gets it when something is dropped.
#[test]
fn a_payload_waits_for_memory_until_the_receiver_keeps_less() {
    within_deadline(|| {
        let rig = Rig::with(|main| main.arena_limit(4 << 20).trust(full_trust()));
        let kept = retaining(&rig, BYTES);
        rig.main.on(TEXT, |event, _| event.set_return_value(&*"m".repeat(8)));
        let _running = Running::start(&rig.main);
        let renderer = rig.builder().arena_limit(4 << 20).connect("app").unwrap();
        let message = bytes(1 << 20);
        let full = loop {
            if let Err(full) = renderer.try_send(BYTES, &message) {
                break full;
            }
        };
        assert_eq!(full, SendError::Full { len: 1 << 20 });
        let refused = renderer.sender().try_loan(BYTES, 1 << 20).unwrap_err();
        assert_eq!(refused, SendError::Full { len: 1 << 20 });
        let refused = renderer.try_send(NAMES, &names(30_000)).unwrap_err();
        assert!(matches!(refused, SendError::Full { .. }), "{refused}");
        let late = renderer.send_timeout(BYTES, &message, Duration::from_millis(20)).unwrap_err();
        assert_eq!(late, SendError::Timeout { len: 1 << 20 });
        // Small ones go on.
        assert_eq!(*renderer.send_sync(TEXT, "small").unwrap(), *"mmmmmmmm");
        let (sent, done) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| sent.send(renderer.send(BYTES, &message)).unwrap());
            assert!(done.recv_timeout(Duration::from_millis(50)).is_err(), "it waits");
            kept.lock().unwrap().clear();
            assert_eq!(done.recv_timeout(PATIENCE).unwrap(), Ok(()));
        });
        let end = Instant::now() + PATIENCE;
        while kept.lock().unwrap().is_empty() {
            assert!(Instant::now() < end);
            thread::yield_now();
        }
        assert!(kept.lock().unwrap().iter().all(|kept| *kept == *message));
    });
}

#[test]
fn a_payload_that_cannot_be_returned_for_what_the_caller_keeps_is_an_error_on_both_sides() {
    within_deadline(|| {
        let rig = Rig::with(|main| main.arena_limit(4 << 20).backlog_limit(4096));
        let answers = Log::<Result<(), ReturnError>>::default();
        let (one, other) = (answers.clone(), answers.clone());
        rig.main.on(BYTES, move |event, bytes| one.push(event.set_return_value(bytes)));
        rig.main.on(NAMES, move |event, listed| other.push(event.set_return_value(&names(listed.len()))));
        rig.main.on(TEXT, |event, text| event.set_return_value(text));
        let _running = Running::start(&rig.main);
        let renderer = rig.builder().arena_limit(4 << 20).trust(full_trust()).connect("app").unwrap();
        let mut replies = Vec::new();
        let error = loop {
            match renderer.send_sync(BYTES, &bytes(1 << 20)) {
                Ok(reply) => replies.push(reply),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, CallError::ReplyFailed(text) if text.contains("1048576")), "{error}");
        // The caller is told first, and the listener then.
        let last = || {
            renderer.send_sync(TEXT, "have you been told?").unwrap();
            answers.take().pop()
        };
        assert!(matches!(last(), Some(Err(ReturnError::Full { len: 1_048_576 }))));
        let error = renderer.send_sync(NAMES, &names(30_000)).unwrap_err();
        assert!(matches!(&error, CallError::ReplyFailed(text) if text.contains("given back")), "{error}");
        assert!(matches!(last(), Some(Err(ReturnError::Full { .. }))));
        assert!(!replies.is_empty() && replies.iter().all(|reply| **reply == *bytes(1 << 20)));
        drop(replies);
        assert_eq!(renderer.send_sync(NAMES, &names(30_000)).unwrap().into_owned(), names(30_000));
    });
}

#[test]
fn a_payload_that_is_encoded_otherwise_each_time_is_an_error_and_never_sent() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<usize>::default());
        let heard = log.clone();
        rig.main.on(UNSTEADY, move |event, message| {
            heard.push(message.text.len());
            match event.set_return_value(&Growing::new(LARGE, 1 << 10)) {
                Err(ReturnError::Encode(EncodeError::Other(text))) => assert!(text.contains("hand-written"), "{text}"),
                other => panic!("{other:?}"),
            }
            // Nobody was told anything yet.
            event.set_return_value(&Growing::new(LARGE, 0))
        });
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        let refused = |error: EncodeError| {
            assert!(matches!(&error, EncodeError::Other(text) if text.contains("hand-written")), "{error}");
        };
        for grows in [1, 64, LARGE] {
            match renderer.send(UNSTEADY, &Growing::new(LARGE, grows)) {
                Err(SendError::Encode(error)) => refused(error),
                other => panic!("{other:?}"),
            }
            match renderer.send_sync(UNSTEADY, &Growing::new(LARGE, grows)) {
                Err(CallError::Encode(error)) => refused(error),
                other => panic!("{other:?}"),
            }
        }
        // A small one is encoded once.
        assert_eq!(renderer.send_sync(UNSTEADY, &Growing::new(10, 1)).unwrap().text.len(), LARGE);
        assert_eq!(renderer.send_sync(UNSTEADY, &Growing::new(LARGE, 0)).unwrap().text.len(), LARGE);
        assert_eq!(log.take(), [10, LARGE]);
    });
}

/// An encoding that sends large messages itself, while its own memory is lent to it.
#[test]
fn a_payload_may_be_sent_while_another_is_being_encoded() {
    struct Nested(Sender);

    impl memit::EncodeAs<Unsteady> for Nested {
        fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
            self.0.send(NAMES, &names(10_000)).unwrap();
            Unsteady { text: "m".repeat(LARGE) }.encode(out)?;
            self.0.send(NAMES, &names(1)).unwrap();
            Ok(())
        }
    }

    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<usize>::default());
        let (heard, names_heard) = (log.clone(), log.clone());
        rig.main.on(UNSTEADY, move |_, message| {
            assert!(message.text.bytes().all(|byte| byte == b'm'));
            heard.push(message.text.len());
        });
        rig.main.on(NAMES, move |_, listed| {
            assert!(listed.iter().zip(names(10_000)).all(|(one, other)| *one == *other));
            names_heard.push(listed.len());
        });
        let renderer = rig.renderer();
        renderer.send(UNSTEADY, &Nested(renderer.sender().clone())).unwrap();
        rig.until(|| log.len() == 5);
        assert_eq!(log.take(), [10_000, 1, 10_000, 1, LARGE]);
    });
}

#[test]
fn a_payload_whose_encoding_panics_half_way_leaves_nothing_lent() {
    struct Panicking(AtomicUsize);

    impl memit::EncodeAs<Unsteady> for Panicking {
        fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
            out.bytes(&bytes(LARGE))?;
            if self.0.fetch_add(1, Ordering::Relaxed) == 1 {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            Ok(())
        }
    }

    within_deadline(|| {
        let rig = Rig::with(|main| main.arena_limit(4 << 20));
        let renderer = rig.builder().arena_limit(4 << 20).connect("app").unwrap();
        for _ in 0..50 {
            let sending = std::panic::AssertUnwindSafe(|| renderer.try_send(UNSTEADY, &Panicking(AtomicUsize::new(0))));
            assert!(std::panic::catch_unwind(sending).is_err());
        }
        renderer.try_send(UNSTEADY, &Growing::new(LARGE, 0)).unwrap();
    });
}

#[test]
#[should_panic(expected = "begins at a multiple of 16")]
fn a_payload_is_not_encoded_to_where_its_root_would_not_be_aligned() {
    let mut target = AlignedBytes::new();
    target.resize(64);
    let _ = encode_to::<Unsteady, _>(&Unsteady { text: "text".to_owned() }, &mut target[8..]);
}

/// Memory is lent to an encoder for as long as one encoding takes, so an encoder that safe code has exchanged for that of
/// an outer encoding must not go on.
#[test]
fn a_payload_encoder_that_was_exchanged_for_another_ends_the_process() {
    struct Outer;
    struct Thief<'e>(RefCell<&'e mut Encoder>);

    impl memit::EncodeAs<Unsteady> for Outer {
        fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
            let mut target = AlignedBytes::new();
            target.resize(LARGE);
            let _ = encode_to::<Unsteady, _>(&Thief(RefCell::new(out)), &mut target);
            drop(target);
            Unsteady { text: "m".repeat(LARGE) }.encode(out)
        }
    }

    impl memit::EncodeAs<Unsteady> for Thief<'_> {
        fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
            std::mem::swap(*self.0.borrow_mut(), out);
            Ok(())
        }
    }

    const CHILD: &str = "MEMIT_TEST_EXCHANGES_ENCODERS";
    if std::env::var_os(CHILD).is_some() {
        let _ = with_encoded::<Unsteady, _, _>(&Outer, |bytes| drop(bytes.to_vec()));
        return;
    }
    let name = "a_payload_encoder_that_was_exchanged_for_another_ends_the_process";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let status = child.args(["--exact", name]).env(CHILD, "1").output().unwrap().status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGABRT), "{status}");
}

#[test]
fn a_payload_measured_and_then_written_is_what_one_encoding_gives() {
    fn check<T: Payload + ?Sized, M: memit::EncodeAs<T> + ?Sized>(message: &M) {
        let expected = with_encoded::<T, M, _>(message, <[u8]>::to_vec).unwrap();
        for most in [0, 1, 16, expected.len().saturating_sub(1), expected.len(), usize::MAX] {
            let encoded = with_encoded_or_sized::<T, M, _>(message, Bound::new(most, 0), <[u8]>::to_vec).unwrap();
            let len = match encoded {
                Encoded::Whole(bytes) => {
                    assert_eq!(bytes, expected);
                    assert!(bytes.len() <= most || message.encoded().is_some());
                    continue;
                }
                Encoded::Sized(len) => len,
            };
            assert!(len > most && len == expected.len());
            let mut target = AlignedBytes::new();
            target.resize(len);
            target.fill(0xee);
            encode_to::<T, M>(message, &mut target).unwrap();
            assert_eq!(*target, *expected);
            assert!(T::view(&target).is_ok());
            for wrong in [0, len - 1, len + 1] {
                target.resize(wrong);
                let refused = encode_to::<T, M>(message, &mut target).unwrap_err();
                assert!(matches!(refused, EncodeError::Other(_)), "{refused}");
            }
        }
    }
    check::<String, str>(&"text ".repeat(1000));
    check::<str, str>(&"text ".repeat(1000));
    check::<[u8], Vec<u8>>(&bytes(1000));
    check::<Vec<String>, _>(&names(0));
    check::<Vec<String>, _>(&names(1));
    check::<Vec<String>, _>(&names(300));
    check::<memit::Args, _>(&args![1, "two", [3.5, {"four": 5}], null, "m".repeat(500)]);
    check::<u64, _>(&7);
    check::<Option<Box<(u8, u64, Vec<u16>)>>, _>(&Some(Box::new((1, 2, vec![3; 500]))));
}
