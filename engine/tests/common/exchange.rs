//! Traffic of every kind between two ports, and a handler that finds each message lost, doubled, displaced or torn.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use memit_engine::{AlignedBytes, Announced, Disconnect, Handler, Incoming, Link, Port, ReplyStatus, Violation};

use super::payload::{EXTENT, content, linked, patient, serve};
use super::{CHANNEL, DEADLINE};

/// Asks a [`Serve`] how many messages it has had from who asks.
pub const COUNT: &[u8] = b"count";

/// Asks it for an answer that lies in memory of its own.
pub const LARGE: &[u8] = b"large";

/// Messages that lie in the ring, in blocks, and in memory of their own, with the arena of `small`.
pub const LENGTHS: [usize; 7] = [8, 40, 500, 1900, 3000, 20_000, EXTENT + 1];
/// Those of them that lie in the ring.
pub const LIGHT: [usize; 4] = [8, 40, 500, 1900];

/// Checks messages, answers [`COUNT`], and any other call with its own bytes.
#[derive(Default)]
pub struct Serve {
    /// The number that is next, of each sender on each link.
    next: HashMap<(u64, u32), u32>,
    /// Told why a connection has ended.
    ended: Option<mpsc::Sender<Disconnect>>,
}

impl Serve {
    /// One that tells why each connection has ended.
    pub fn telling(ended: mpsc::Sender<Disconnect>) -> Self {
        Self { ended: Some(ended), ..Self::default() }
    }
}

impl Handler for Serve {
    fn connected(&mut self, _: &Arc<Link>) {}

    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn message(&mut self, message: Incoming<'_>) {
        let from = message.link.id();
        let Some(call) = message.call else {
            let (sender, number) = (number_at(message.bytes, 0), number_at(message.bytes, 4));
            let next = self.next.entry((from, sender)).or_default();
            assert_eq!(number, *next, "of sender {sender}");
            assert!(message.bytes == numbered(sender, number, message.bytes.len()), "message {number} is torn");
            *next += 1;
            return;
        };
        // Whether the caller still waits is its affair.
        let _ = if message.bytes == COUNT {
            let of_link = self.next.iter().filter(|((link, _), _)| *link == from);
            let count: u32 = of_link.map(|(_, count)| count).sum();
            message.link.reply(call, ReplyStatus::Value, &count.to_le_bytes())
        } else if message.bytes == LARGE {
            message.link.reply(call, ReplyStatus::Value, &content(0, EXTENT + 1))
        } else {
            message.link.reply(call, ReplyStatus::Value, message.bytes)
        };
    }

    fn disconnected(&mut self, _: &Arc<Link>, reason: &Disconnect) {
        if let Some(ended) = &self.ended {
            let _ = ended.send(reason.clone());
        }
    }
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn numbered(sender: u32, number: u32, len: usize) -> Vec<u8> {
    let mut bytes = content(u64::from(sender) << 32 | u64::from(number), len);
    bytes[..4].copy_from_slice(&sender.to_le_bytes());
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Sends `sender`'s messages with these numbers, of these lengths in turn.
pub fn send_numbers(link: &Link, sender: u32, numbers: std::ops::Range<u32>, lengths: &[usize]) {
    for (number, len) in numbers.zip(lengths.iter().cycle()) {
        link.send(CHANNEL, &numbered(sender, number, *len), patient()).unwrap();
    }
}

/// Has `count` calls answered.
pub fn call_often(link: &Link, count: u32, lengths: &[usize]) {
    let mut reply = AlignedBytes::new();
    for (number, len) in (0..count).zip(lengths.iter().cycle()) {
        let sent = numbered(u32::MAX, number, *len);
        let kept = link.call(CHANNEL, &sent, Some(Instant::now() + DEADLINE), &mut reply).unwrap();
        assert!(kept.as_deref().unwrap_or(&reply) == sent, "answer {number} is torn");
    }
}

/// How many messages the peer's [`Serve`] has had from us. A call comes behind the messages that were sent before.
pub fn count_at_peer(link: &Link) -> u32 {
    let mut reply = AlignedBytes::new();
    assert!(link.call(CHANNEL, COUNT, Some(Instant::now() + DEADLINE), &mut reply).unwrap().is_none());
    number_at(&reply, 0)
}

/// Messages by two threads and calls by two more, from each side to the other, at once; then the end of it.
pub fn exchange(main: &Port, renderer: &Port, rounds: u32, lengths: &[usize]) {
    const SENDERS: u32 = 2;
    let (to_renderer, to_main) = linked(main, renderer);
    let dispatching = [main, renderer].map(|port| serve(port, Serve::default()));
    thread::scope(|scope| {
        for link in [&to_renderer, &to_main] {
            for sender in 0..SENDERS {
                scope.spawn(move || send_numbers(link, sender, 0..rounds, lengths));
                scope.spawn(move || call_often(link, rounds / 4, lengths));
            }
        }
    });
    for link in [&to_renderer, &to_main] {
        assert_eq!(count_at_peer(link), SENDERS * rounds);
    }
    main.shutdown();
    for dispatching in dispatching {
        dispatching.join().unwrap();
    }
    assert_eq!(to_main.ended(), Some(Disconnect::Left));
}
