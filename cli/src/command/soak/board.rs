//! What a process has done, in a file that outlives it: how else would anybody know how far it was when it was killed?
//!
//! Each word has one writer. A thread writes the words of its lane when a send has returned, so what is written is never
//! more than what was done, and at most one message less.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::parcel::LANES;

/// Words of a board.
pub(crate) const WORDS: usize = 32;

/// Process id of the writer.
pub(crate) const PID: usize = 0;
/// A [`State`].
pub(crate) const STATE: usize = 1;
/// Broadcasts that every renderer has, or was told that it missed.
pub(crate) const NEWS: usize = 2;
/// Messages and bytes that came, calls that were answered, and sends that found no space.
pub(crate) const HEARD: usize = 3;
pub(crate) const BYTES: usize = 4;
pub(crate) const CALLS: usize = 5;
pub(crate) const REFUSED: usize = 6;
/// Messages that were retained and looked at again.
pub(crate) const RETAINED: usize = 7;
/// Connections that this process has made.
pub(crate) const CONNECTIONS: usize = 8;
/// From here on, by thread: steps done, where it stands, and messages sent.
const THREADS: usize = 9;
const PER_THREAD: usize = 3;
/// Threads of a board.
pub(crate) const SLOTS: usize = 4;

/// Where a thread stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Stand {
    Absent,
    Starting,
    Connecting,
    Greeting,
    Dispatching,
    Sending,
    Lending,
    Calling,
    Pausing,
    Broadcasting,
    Reporting,
    Joining,
    Ending,
    Done,
}

impl Stand {
    const ALL: [Self; 14] = [
        Self::Absent,
        Self::Starting,
        Self::Connecting,
        Self::Greeting,
        Self::Dispatching,
        Self::Sending,
        Self::Lending,
        Self::Calling,
        Self::Pausing,
        Self::Broadcasting,
        Self::Reporting,
        Self::Joining,
        Self::Ending,
        Self::Done,
    ];
}

/// Whether the writer still adds to what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum State {
    Open,
    /// It sends nothing any more, and is about to leave.
    AtRest,
    /// The stream has ended, and its writer has compared it with the other side's board.
    Closed,
}

/// A board to write on.
#[derive(Debug)]
pub(crate) struct Board {
    file: File,
    heard: AtomicU64,
    bytes: AtomicU64,
    calls: AtomicU64,
    refused: AtomicU64,
    retained: AtomicU64,
}

impl Board {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let board = Self {
            file,
            heard: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            retained: AtomicU64::new(0),
        };
        // The last word first, so that the file never has another length than all of it.
        board.write(WORDS - 1, &[0]);
        board.write(PID, &[u64::from(std::process::id())]);
        Ok(board)
    }

    pub(crate) fn set(&self, word: usize, value: u64) {
        self.write(word, &[value]);
    }

    pub(crate) fn rest(&self, state: State) {
        self.set(STATE, state as u64);
    }

    /// The words of a thread.
    pub(crate) fn thread(self: &Arc<Self>, slot: usize) -> Slot {
        Slot { board: Arc::clone(self), word: THREADS + slot * PER_THREAD, steps: 0, sent: 0, stand: Stand::Absent }
    }

    pub(crate) fn hears(&self, bytes: u64) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn looked_again(&self) {
        self.retained.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes down what was counted.
    pub(crate) fn show_counts(&self) {
        let counts = [&self.heard, &self.bytes, &self.calls, &self.refused, &self.retained];
        self.write(HEARD, &counts.map(|count| count.load(Ordering::Relaxed)));
    }

    fn write<const N: usize>(&self, word: usize, values: &[u64; N]) {
        let mut bytes = [0; WORDS * 8];
        for (value, place) in values.iter().zip(bytes.chunks_exact_mut(8)) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
        if let Err(error) = self.file.write_all_at(&bytes[..N * 8], word as u64 * 8) {
            // The checks would then complain for a wrong reason.
            eprintln!("memit: the soak's board cannot be written: {error}");
            std::process::exit(1);
        }
    }
}

/// A thread's words on a board.
#[derive(Debug)]
pub(crate) struct Slot {
    board: Arc<Board>,
    word: usize,
    steps: u64,
    sent: u64,
    stand: Stand,
}

impl Slot {
    /// The thread is about to do that, which may wait.
    pub(crate) fn stands(&mut self, stand: Stand) {
        if self.stand != stand {
            self.stand = stand;
            self.board.set(self.word + 1, stand as u64);
        }
    }

    /// The thread has done something.
    pub(crate) fn steps(&mut self) {
        self.steps += 1;
        self.board.set(self.word, self.steps);
    }

    /// A send has returned.
    pub(crate) fn sent(&mut self) {
        self.sent += 1;
        self.steps += 1;
        self.board.write(self.word, &[self.steps, self.stand as u64, self.sent]);
    }

    /// How many sends have returned, which is the number of the next message.
    pub(crate) fn number(&self) -> u64 {
        self.sent
    }
}

/// What a board said when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading([u64; WORDS]);

impl Reading {
    /// `None` while it is not there.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let bytes = fs::read(path).ok()?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        (bytes.len() == WORDS * 8).then_some(Self(words))
    }

    pub(crate) fn get(&self, word: usize) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }

    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.get(PID)).unwrap_or(0)
    }

    pub(crate) fn is(&self, state: State) -> bool {
        self.get(STATE) == state as u64
    }

    pub(crate) fn steps(&self, slot: usize) -> u64 {
        self.get(THREADS + slot * PER_THREAD)
    }

    pub(crate) fn stand(&self, slot: usize) -> Stand {
        let stand = usize::try_from(self.get(THREADS + slot * PER_THREAD + 1)).unwrap_or(0);
        Stand::ALL.get(stand).copied().unwrap_or(Stand::Absent)
    }

    /// Messages sent, by lane: thread and lane have one number.
    pub(crate) fn sent(&self) -> [u64; LANES] {
        std::array::from_fn(|lane| self.get(THREADS + lane * PER_THREAD + 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_though_the_writer_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("board");
        assert_eq!(Reading::of(&path), None);
        let board = Arc::new(Board::create(&path).unwrap());
        let mut slot = board.thread(2);
        slot.stands(Stand::Sending);
        slot.sent();
        slot.sent();
        slot.stands(Stand::Pausing);
        slot.steps();
        board.hears(5);
        board.hears(6);
        board.answered();
        board.show_counts();
        board.rest(State::AtRest);
        drop(board);
        let read = Reading::of(&path).unwrap();
        assert_eq!(read.pid(), std::process::id());
        assert_eq!((read.steps(2), read.stand(2), read.sent()), (3, Stand::Pausing, [0, 0, 2]));
        assert_eq!((read.get(HEARD), read.get(BYTES), read.get(CALLS), read.get(REFUSED)), (2, 11, 1, 0));
        assert!(read.is(State::AtRest) && !read.is(State::Closed));
    }

    #[test]
    fn every_stand_is_read_as_what_it_is() {
        for (number, stand) in Stand::ALL.into_iter().enumerate() {
            assert_eq!(stand as usize, number);
        }
    }

    const _: () = assert!(THREADS + SLOTS * PER_THREAD <= WORDS);
}
