//! Counts that outlive a killed process: a memfd that the test and its children map.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::MemfdFlags;

use crate::map::Map;

/// Tells a child the number of the descriptor that it inherits.
const VARIABLE: &str = "MEMIT_CRASH_LEDGER";

const SLOTS: u64 = 8192;
const SLOT_WORDS: u64 = 8;
const SIZE: usize = (SLOTS * SLOT_WORDS) as usize * size_of::<AtomicU64>();

/// Words of slot 0, which is nobody's.
const OPENED: u64 = 0;
const FAULTS: u64 = 1;

/// Words of the others.
const BEGUN: u64 = 0;
const DONE: u64 = 1;
const RECEIVED: u64 = 2;
const FROM: u64 = 3;
const TO: u64 = 4;

/// What processes have sent and received, by streams: the messages of one thread to one peer.
pub struct Ledger {
    words: Map,
    fd: OwnedFd,
}

/// One stream as it stands.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub from: i32,
    pub to: i32,
    /// Messages whose sending has begun, has returned, and that were received.
    pub begun: u64,
    pub done: u64,
    pub received: u64,
}

impl Ledger {
    pub fn new() -> Self {
        let fd = rustix::fs::memfd_create("ledger", MemfdFlags::empty()).unwrap();
        rustix::fs::ftruncate(&fd, SIZE as u64).unwrap();
        Self::map(fd)
    }

    /// The ledger of the process that started this one.
    pub fn inherited() -> Self {
        let number = std::env::var(VARIABLE).unwrap().parse().unwrap();
        // SAFETY: the parent left this descriptor open for this process alone to take.
        Self::map(unsafe { OwnedFd::from_raw_fd(number) })
    }

    fn map(fd: OwnedFd) -> Self {
        Self { words: Map::new(&fd, SIZE, true).unwrap(), fd }
    }

    /// What to set in a child's environment.
    pub fn variable(&self) -> (&'static str, String) {
        (VARIABLE, self.fd.as_fd().as_raw_fd().to_string())
    }

    fn word(&self, slot: u64, word: u64) -> &AtomicU64 {
        assert!(slot < SLOTS && word < SLOT_WORDS, "the ledger has no slot {slot}");
        self.words.word64((slot * SLOT_WORDS + word) as usize * size_of::<AtomicU64>())
    }

    /// Begins a stream; its number.
    pub fn open(&self, from: i32, to: i32) -> u64 {
        let slot = self.word(0, OPENED).fetch_add(1, Ordering::SeqCst) + 1;
        self.word(slot, FROM).store(from as u64, Ordering::SeqCst);
        self.word(slot, TO).store(to as u64, Ordering::SeqCst);
        slot
    }

    /// Message `seq` of a stream is about to be sent.
    pub fn begin(&self, slot: u64, seq: u64) {
        self.word(slot, BEGUN).store(seq + 1, Ordering::SeqCst);
    }

    /// Message `seq` of a stream, and with it all before, is published.
    pub fn finish(&self, slot: u64, seq: u64) {
        self.word(slot, DONE).store(seq + 1, Ordering::SeqCst);
    }

    /// Message `seq` of a stream has come.
    pub fn receive(&self, slot: u64, seq: u64) {
        let next = self.word(slot, RECEIVED).fetch_add(1, Ordering::SeqCst);
        if next != seq {
            self.fault(&format!("of stream {slot}, message {seq} came in place of {next}"));
        }
    }

    /// Something that must not be has been seen.
    pub fn fault(&self, text: &str) {
        eprintln!("process {}: {text}", std::process::id());
        self.word(0, FAULTS).fetch_add(1, Ordering::SeqCst);
    }

    pub fn faults(&self) -> u64 {
        self.word(0, FAULTS).load(Ordering::SeqCst)
    }

    pub fn streams(&self) -> Vec<Stream> {
        let opened = self.word(0, OPENED).load(Ordering::SeqCst);
        let stream = |slot| {
            let word = |word| self.word(slot, word).load(Ordering::SeqCst);
            // What was received is read first, so that it cannot exceed what was begun.
            let received = word(RECEIVED);
            Stream { from: word(FROM) as i32, to: word(TO) as i32, begun: word(BEGUN), done: word(DONE), received }
        };
        (1..=opened).map(stream).collect()
    }
}

impl AsFd for Ledger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
