//! The reading half: one word to poll, and every word from the producer checked.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;

use crate::cursor::fits;
use crate::error::CorruptFrame;
use crate::layout::{Capacity, DESCRIPTOR_OFFSET, Descriptor, HEADER, Header, LINE_STEP, kind};
use crate::memory::{OwnCursor, RingRead, RingView};
use crate::stamp::Key;
use crate::sync::{Ordering, fence};

/// How many frames of padding one poll passes.
///
/// An honest producer leaves one where a frame did not fit before the ring's end, and that once a lap. A claim that was
/// given up, or a line whose stale bytes were the stamp awaited next (one claim in 2^64, unless payloads are made up for
/// it), adds one. Where more follow each other, the next poll goes on, which costs its user one more turn of a loop.
const MAX_PADDING: usize = 4;

// A poll begins less than a quarter of the ring beyond the published head, so it never comes round to it.
const _: () = assert!(MAX_PADDING * Capacity::MIN / 8 + Capacity::MIN / 4 < Capacity::MIN);

/// The reading half of a ring, used by one thread at a time.
///
/// It can move to another thread but not be shared:
/// ```compile_fail,E0277
/// # use memit_ringbuf::*;
/// fn shared<T: Sync>() {}
/// shared::<Consumer<HeapRing, HeapCursor>>(); // cannot be shared between threads safely
/// ```
pub struct Consumer<M, C> {
    memory: M,
    cursor: C,
    key: Key,
    /// Where the next frame begins.
    head: u64,
    /// The head that the producer knows of.
    published: u64,
    _not_sync: PhantomData<Cell<()>>,
}

/// What a poll has found.
#[must_use = "what lies behind padding is there for the next poll alone"]
pub enum Polled<'c, M, C> {
    /// The frame at the head.
    Frame(Frame<'c, M, C>),
    /// More padding in a row than one poll passes. Something is there still: poll again, after the turn of others that
    /// are to be served, but before waiting for anything.
    Padding,
    /// Nothing was published.
    Empty,
}

impl<'c, M, C> Polled<'c, M, C> {
    /// The frame, if there is one: for whoever polls again in any case.
    #[inline]
    pub fn frame(self) -> Option<Frame<'c, M, C>> {
        match self {
            Self::Frame(frame) => Some(frame),
            Self::Padding | Self::Empty => None,
        }
    }
}

/// What was found behind padding.
enum Passed {
    Frame(Checked),
    Padding,
    Empty,
}

/// A descriptor that passed the checks, with the size of its frame.
#[derive(Clone, Copy)]
struct Checked {
    descriptor: Descriptor,
    size: u64,
}

impl<M: RingRead, C: OwnCursor> Consumer<M, C> {
    /// Begins at position 0. `cursor` holds 0 and is the one that the ring's producer reads.
    pub fn new(memory: M, cursor: C, key: Key) -> Self {
        Self::starting_at(memory, cursor, key, 0)
    }

    /// Begins at `position`, rounded down to a line: the counterpart of
    /// [`Producer::starting_at`](crate::Producer::starting_at). `cursor` holds it already.
    pub fn starting_at(memory: M, cursor: C, key: Key, position: u64) -> Self {
        let head = position & !(LINE_STEP - 1);
        Self { memory, cursor, key, head, published: head, _not_sync: PhantomData }
    }

    /// Looks for the frame at the head. Padding before it is skipped.
    ///
    /// An empty ring costs one load and one compare. The frame stays at the head until it is
    /// [released](Frame::release); dropping it and polling again gives it once more.
    ///
    /// A poll passes a few frames of padding at most, whatever the producer writes, and says so if
    /// there are [more](Polled::Padding).
    ///
    /// # Errors
    /// [`CorruptFrame`], when the producer wrote what none can have; it will not get better.
    #[inline]
    pub fn poll(&mut self) -> Result<Polled<'_, M, C>, CorruptFrame> {
        if !self.is_ready() {
            return Ok(Polled::Empty);
        }
        let mut found = self.inspect()?;
        if found.descriptor.header.kind == kind::PADDING {
            match self.skip_padding(found)? {
                Passed::Frame(behind) => found = behind,
                Passed::Padding => return Ok(Polled::Padding),
                Passed::Empty => return Ok(Polled::Empty),
            }
        }
        Ok(Polled::Frame(Frame { consumer: self, found }))
    }

    /// Publishes the head, if the producer does not know it yet; says whether it did not.
    ///
    /// [`Frame::release`] does so by itself once a quarter of the ring has been released. Call it
    /// when the ring is found empty, before waiting for anything, and when the producer waits for
    /// a position that has been [reached](crate::reached).
    #[inline]
    pub fn publish_head(&mut self) -> bool {
        if self.published == self.head {
            return false;
        }
        self.published = self.head;
        crash_point!("head-before");
        // SYNC head-release: pairs with Producer::make_room.
        self.cursor.store(self.head);
        crash_point!("head-after");
        true
    }

    /// Moves the head over claims that were never ended to the next frame that was published, which may be the one at
    /// the head; says whether there is one. For a producer that is gone: what it has not published by now it never will.
    ///
    /// A process that dies while one of its threads has a claim open leaves a gap, and other threads may have published
    /// behind it. The next stamp tells where. In the gap lies what the claim has written so far and what earlier frames
    /// left, and neither is the stamp of its own position: stamps of earlier laps differ, and a payload holds it no
    /// likelier than any other word that nobody knows.
    #[cold]
    pub fn skip_gap(&mut self) -> bool {
        let capacity = self.memory.capacity();
        let is_published = |position| self.memory.load(capacity.offset(position)) == self.key.stamp(position);
        // A frame is at least a line, and ends within what the producer knew to be free.
        let may_begin = |position: u64| fits(position.wrapping_add(LINE_STEP), self.published, capacity);
        let lines = (0..).map(|line| self.head.wrapping_add(line * LINE_STEP));
        match lines.take_while(|line| may_begin(*line)).find(|line| is_published(*line)) {
            Some(next) => self.head = next,
            None => return false,
        }
        true
    }

    /// Where the next frame begins: everything before has been released.
    #[inline]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The head that was last published to the producer.
    #[inline]
    pub fn published_head(&self) -> u64 {
        self.published
    }

    /// Whether something has been published at the head: a frame, or padding.
    ///
    /// It takes nothing and changes nothing; [`poll`](Self::poll) then says what it is.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.memory.load(self.memory.capacity().offset(self.head)) == self.key.stamp(self.head)
    }

    /// The ring's memory.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Reads the second word of the frame at the head, which was found published, and checks it.
    #[inline]
    fn inspect(&self) -> Result<Checked, CorruptFrame> {
        // SYNC frame-publish: pairs with Claim::commit.
        fence(Ordering::Acquire);
        let capacity = self.memory.capacity();
        let offset = capacity.offset(self.head) + DESCRIPTOR_OFFSET;
        let descriptor = Descriptor::from_word(self.memory.load(offset));
        let size = descriptor.frame_size();
        if size > capacity.max_frame() || size > capacity.room(self.head) {
            return Err(self.corrupt(descriptor.len));
        }
        Ok(Checked { descriptor, size: size as u64 })
    }

    #[cold]
    #[inline(never)]
    fn corrupt(&self, len: u32) -> CorruptFrame {
        let capacity = self.memory.capacity();
        let (position, max) = (self.head, capacity.max_payload());
        if len as usize > max {
            CorruptFrame::TooLong { position, len, max }
        } else {
            CorruptFrame::Straddles { position, len, room: capacity.room(position) - HEADER }
        }
    }

    /// Moves the head over `found` and the padding that follows it: to the frame behind, or to where the next will be,
    /// or as far as one poll goes. What is corrupt is found before anything is published.
    #[cold]
    #[inline(never)]
    fn skip_padding(&mut self, mut found: Checked) -> Result<Passed, CorruptFrame> {
        let mut passed = Passed::Padding;
        for _ in 0..MAX_PADDING {
            self.head = self.head.wrapping_add(found.size);
            if !self.is_ready() {
                passed = Passed::Empty;
                break;
            }
            found = self.inspect()?;
            if found.descriptor.header.kind != kind::PADDING {
                passed = Passed::Frame(found);
                break;
            }
        }
        self.publish_head_lazily();
        Ok(passed)
    }

    #[inline]
    fn publish_head_lazily(&mut self) {
        let quarter = self.memory.capacity().span() / 4;
        if self.head.wrapping_sub(self.published) >= quarter {
            self.publish_head();
        }
    }
}

impl<M, C> fmt::Debug for Consumer<M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).field("published", &self.published).finish_non_exhaustive()
    }
}

impl<M, C> fmt::Debug for Polled<'_, M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(frame) => frame.fmt(f),
            Self::Padding => f.write_str("Padding"),
            Self::Empty => f.write_str("Empty"),
        }
    }
}

/// The frame at a consumer's head.
///
/// Header and length were read once and checked. The payload is the producer's memory still: read
/// it once, and check what was copied.
///
/// A frame is gone when it is released, and never outlives the next poll:
/// ```compile_fail,E0499
/// # use memit_ringbuf::*;
/// # fn check(consumer: &mut Consumer<HeapRing, HeapCursor>) -> Result<(), CorruptFrame> {
/// let frame = consumer.poll()?;
/// let next = consumer.poll()?; // cannot borrow as mutable more than once
/// drop(frame);
/// # drop(next); Ok(()) }
/// ```
/// ```compile_fail,E0382
/// # use memit_ringbuf::*;
/// # fn check(frame: Frame<'_, HeapRing, HeapCursor>) {
/// frame.release();
/// frame.len(); // use of moved value
/// # }
/// ```
#[must_use = "a frame that is dropped stays at the head; release it"]
pub struct Frame<'c, M, C> {
    consumer: &'c mut Consumer<M, C>,
    found: Checked,
}

impl<M: RingRead, C: OwnCursor> Frame<'_, M, C> {
    /// What the producer committed the frame with. Never of kind [`kind::PADDING`].
    #[inline]
    pub fn header(&self) -> Header {
        self.found.descriptor.header
    }

    /// The exact length of the payload.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // an empty payload is a message like any other
    pub fn len(&self) -> usize {
        self.found.descriptor.len as usize
    }

    /// Where the frame begins.
    #[inline]
    pub fn position(&self) -> u64 {
        self.consumer.head
    }

    /// Copies the whole payload.
    ///
    /// # Panics
    /// Unless `dst` is as long as the payload.
    #[inline]
    pub fn copy_to(&self, dst: &mut [u8]) {
        if dst.len() != self.len() {
            outside(0, dst.len(), self.len());
        }
        self.consumer.memory.copy_to(self.payload(), dst);
    }

    /// Copies `dst.len()` bytes of the payload from `offset`.
    ///
    /// # Panics
    /// Unless `offset` is a multiple of 8 and the bytes end within the payload.
    #[inline]
    pub fn copy_range_to(&self, offset: usize, dst: &mut [u8]) {
        let len = self.len();
        if !offset.is_multiple_of(8) || offset > len || dst.len() > len - offset {
            outside(offset, dst.len(), len);
        }
        self.consumer.memory.copy_to(self.payload() + offset, dst);
    }

    /// The payload where it lies.
    ///
    /// # Safety
    /// The producer is trusted in full: it keeps the protocol, so that nobody writes these bytes
    /// before the frame is released.
    #[inline]
    #[allow(unsafe_code)]
    pub unsafe fn view(&self) -> &[u8]
    where
        M: RingView,
    {
        // SAFETY: the caller vouches for the producer, and the frame, which the slice borrows,
        // is not released while the slice lives.
        unsafe { self.consumer.memory.view(self.payload(), self.len()) }
    }

    /// Moves the head past the frame. Once a quarter of the ring has been released, that is
    /// published to the producer.
    #[inline]
    pub fn release(self) {
        let Self { consumer, found } = self;
        consumer.head = consumer.head.wrapping_add(found.size);
        consumer.publish_head_lazily();
    }

    #[inline]
    fn payload(&self) -> usize {
        self.consumer.memory.capacity().offset(self.consumer.head) + HEADER
    }
}

impl<M, C> fmt::Debug for Frame<'_, M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("position", &self.consumer.head)
            .field("descriptor", &self.found.descriptor)
            .finish_non_exhaustive()
    }
}

#[cold]
#[inline(never)]
fn outside(offset: usize, bytes: usize, len: usize) -> ! {
    panic!(
        "{bytes} bytes read at {offset} of a payload of {len} bytes: expected an offset that is a \
         multiple of 8, and an end within the payload (for the whole payload: exactly its length)"
    );
}
