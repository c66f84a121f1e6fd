//! The writing half: claims by compare-exchange on a private tail.
//!
//! # Memory ordering
//!
//! Four words and the payload are shared. Between processes: each frame's **stamp** (producer to
//! consumer) and the **head** (consumer to producer). Between the producer's threads: the **tail**
//! and the **known head**, a copy of `head` that spares a look at the other process's line.
//!
//! **frame-publish.** Committing a claim stores all its words relaxed, and last the stamp of its
//! first frame with `Release`. The consumer loads the word at its head relaxed and, when it is the
//! stamp, passes `fence(Acquire)`. So it sees everything that the claim wrote. One release is
//! enough for a claim of several frames (padding before the ring's end, the payload's frame, lines
//! that collided): the consumer comes to the later ones only through the first, and by then it
//! sees their stamps and second words.
//!
//! **head-release.** The consumer reads a payload, then stores `head` with `Release`. The producer
//! loads it relaxed and passes `fence(Acquire)` before it overwrites anything. So no word of a new
//! frame is visible to loads of the old one. A thread that goes by the known head instead takes it
//! with `Acquire`, and the thread that raised it did so with `Release` behind that fence
//! (**known-head**), so the chain holds.
//!
//! **The tail** is only ever accessed relaxed: it divides the ring among threads and publishes no
//! bytes. What a claim needs to see, it gets from head-release.
//!
//! **Why the collision check is exact.** The consumer will wait at `end` of this claim for
//! `stamp(end)`, and the word there may be stale payload. The claim looks at that word before it
//! moves the tail from `first` to `end`.
//! - It sees the last word stored there so far: the line was published and released a lap ago
//!   (`end + 64 <= head + capacity`), and head-release orders those stores before the look.
//! - No other is stored there before the claim: that would take a claim beyond `end`, which moves
//!   the tail; positions never come back, so the compare-exchange fails then. A match seen from a
//!   tail that is out of date is normal (somebody has published there) and fails the same way.
//! - So if it is not the stamp, the next store of the stamp is its publication. The consumer can
//!   not load an older word either: it took in all frames of the lap before, with `Acquire`.
//! - If it is, the line joins the claim as a padding frame, and the look goes on behind it. The
//!   consumer cannot meet it early: the claim's first stamp comes last.
//!
//! A run of colliding lines ends: every frame of the lap before begins with a line whose stamp is
//! that lap's, and no frame is longer than an eighth of the ring. So padding, frame and colliding
//! lines take less than three eighths, and a claim always fits an empty ring.
//!
//! **Why the check of the head is exact.** A thread loads the known head (`Acquire`), then the head
//! (relaxed, then the fence), then the tail. The known head was once loaded as the head by the
//! thread that stored it, which happened before this one's load; so an honest head is not behind
//! it. The head's owner had taken in frames up to it, whose claims had moved the tail; so the tail,
//! loaded last, is not behind the head. What breaks these bounds was forged. A forged head between
//! them frees claims that are still being written, which garbles only what the forger will read.
//!
//! **Exclusive.** Bit 0 of the tail (positions are multiples of 64) says that a guard owns the
//! tail: its holder claims by plain arithmetic and stores the new tail when it ends. The others
//! see the bit whenever they would see a tail that is out of date: a head or known head beyond
//! that tail comes from frames of the guard, and so from after the bit was set.

use core::fmt;

use crossbeam_utils::CachePadded;

use crate::claim::Claim;
use crate::cursor::{Span, fits, reached, wanted};
use crate::error::{ClaimError, CorruptHead, Held};
use crate::exclusive::Exclusive;
use crate::layout::{Capacity, LINE, LINE_STEP, frame_size};
use crate::memory::{PeerCursor, RingWrite, each_line_to_prefetch};
use crate::stamp::Key;
use crate::sync::{AtomicU64, Ordering, fence, real};

/// Bit 0 of the tail: an [`Exclusive`] guard owns it.
const HELD: u64 = 1;

/// The writing half of a ring, shared by the threads of one process.
///
/// ```
/// # use memit_ringbuf::{Capacity, Header, HeapCursor, HeapRing, Key, Producer};
/// # let (ring, head) = (HeapRing::new(Capacity::new(4096)?), HeapCursor::new());
/// # let key = Key::new(1).ok_or("key")?;
/// let producer = Producer::new(ring, head, key);
/// std::thread::scope(|scope| {
///     for thread in 0..2 {
///         let producer = &producer;
///         scope.spawn(move || {
///             let mut claim = producer.try_claim(8).expect("there is space for two");
///             claim.write(0, &u64::to_le_bytes(thread));
///             claim.commit(Header { channel: 1, kind: 1, flags: 0 });
///         });
///     }
/// });
/// assert_eq!(producer.tail(), 2 * 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Producer<M, H> {
    memory: M,
    /// Written by the consumer, in another process; any value may be found there.
    head: H,
    key: Key,
    tail: CachePadded<Tail>,
    /// A head that the consumer had reached and that passed the checks; may be out of date, never
    /// ahead. Written by threads that ran out of space, read by each claim.
    known_head: CachePadded<AtomicU64>,
}

/// Written and read by this process's threads.
struct Tail {
    /// Where the next claim begins, and [`HELD`]. While held: the position at which the guard was
    /// taken.
    position: AtomicU64,
    /// The size of the last frame, as a guess at the next one's. Nothing else hangs on it, so no
    /// model needs it.
    last_size: real::AtomicUsize,
}

/// Why a claim could not be laid out from a given tail and head.
pub(crate) struct NoSpace {
    pub(crate) wanted: u64,
}

impl<M: RingWrite, H: PeerCursor> Producer<M, H> {
    /// Begins a ring at position 0. `head` is the cursor that the ring's consumer publishes to.
    ///
    /// The memory is zeroed, else stale words in it may be taken for frames.
    pub fn new(memory: M, head: H, key: Key) -> Self {
        Self::starting_at(memory, head, key, 0)
    }

    /// Begins a ring at `position`, rounded down to a line: for tests of laps, collisions and the
    /// end of the numbers. `head` and the consumer begin there too.
    pub fn starting_at(memory: M, head: H, key: Key, position: u64) -> Self {
        let position = position & !(LINE_STEP - 1);
        Self {
            memory,
            head,
            key,
            tail: CachePadded::new(Tail {
                position: AtomicU64::new(position),
                last_size: real::AtomicUsize::new(LINE),
            }),
            known_head: CachePadded::new(AtomicU64::new(position)),
        }
    }

    /// The longest payload that a frame can carry.
    #[inline]
    pub fn max_payload(&self) -> usize {
        self.memory.capacity().max_payload()
    }

    /// Has the processor fetch what the next claim will write, if that is as long as the last one:
    /// for who is about to make a payload, so that the two happen at once.
    #[inline(always)]
    pub fn prefetch(&self) {
        let position = self.tail.position.load(Ordering::Relaxed);
        self.prefetch_at(position, self.tail.last_size.load(Ordering::Relaxed));
    }

    /// As [`prefetch`](Self::prefetch), for a frame of `size` bytes at `position`.
    #[inline(always)]
    pub(crate) fn prefetch_at(&self, position: u64, size: usize) {
        let offset = self.memory.capacity().offset(position);
        if size == LINE {
            self.memory.prefetch(offset);
        } else {
            self.prefetch_lines(offset, size);
        }
    }

    /// Apart, so that the most frequent frame takes no more than it needs.
    #[inline(never)]
    fn prefetch_lines(&self, offset: usize, size: usize) {
        each_line_to_prefetch(size, |line| self.memory.prefetch(offset + line));
    }

    /// Claims a frame for a payload of exactly `len` bytes.
    ///
    /// The frames of all claims are consumed in the order of the claims, so an open claim holds
    /// up every later one: write and commit without running foreign code in between.
    ///
    /// # Errors
    /// [`ClaimError`]; nothing is claimed then.
    #[inline(always)]
    pub fn try_claim(&self, len: usize) -> Result<Claim<'_, M, H>, ClaimError> {
        let size = self.frame_size(len)?;
        loop {
            // SYNC known-head: pairs with Producer::raise_known_head.
            let known_head = self.known_head.load(Ordering::Acquire);
            let tail = self.tail.position.load(Ordering::Relaxed);
            if tail & HELD == 0
                && let Ok(span) = self.lay(tail, size, known_head)
            {
                if self.advance(tail, span.end) {
                    self.tail.last_size.store(size, Ordering::Relaxed);
                    return Ok(Claim::new(self, span, len));
                }
                // Another thread's claim came first, so the threads together made progress.
                continue;
            }
            self.make_room(size)?;
        }
    }

    /// Whether a claim for a payload of `len` bytes would find room now; another thread's may come first.
    ///
    /// # Errors
    /// What [`try_claim`](Self::try_claim) would say.
    pub fn check_room(&self, len: usize) -> Result<(), ClaimError> {
        self.make_room(self.frame_size(len)?)
    }

    /// Says why there is no room for a frame of `size` bytes, or that there is by now.
    #[cold]
    #[inline(never)]
    fn make_room(&self, size: usize) -> Result<(), ClaimError> {
        // SYNC known-head: pairs with Producer::raise_known_head.
        let known = self.known_head.load(Ordering::Acquire);
        let found = self.head.load();
        // SYNC head-release: pairs with OwnCursor::store in Consumer::publish_head.
        fence(Ordering::Acquire);
        let tail = self.tail.position.load(Ordering::Relaxed);
        if tail & HELD != 0 {
            return Err(ClaimError::Held);
        }
        self.admit_head(found, known, tail, size).map(drop)
    }

    /// [`make_room`](Self::make_room) for the holder of the guard, who knows the tail: gives the
    /// head by which there is room.
    #[cold]
    #[inline(never)]
    pub(crate) fn make_room_held(&self, known: u64, tail: u64, size: usize) -> Result<u64, ClaimError> {
        let found = self.head.load();
        // SYNC head-release: pairs with OwnCursor::store in Consumer::publish_head.
        fence(Ordering::Acquire);
        self.admit_head(found, known, tail, size)
    }

    /// Checks a head that was loaded from the consumer's line, makes it known, and says whether
    /// it leaves room for a frame of `size` bytes at `tail`.
    fn admit_head(&self, found: u64, known: u64, tail: u64, size: usize) -> Result<u64, ClaimError> {
        let head = check_head(found, known, tail).map_err(ClaimError::Corrupt)?;
        self.raise_known_head(head);
        match self.lay(tail, size, head) {
            Ok(_) => Ok(head),
            Err(NoSpace { wanted }) => Err(ClaimError::Full { wanted }),
        }
    }

    /// Takes the tail for one holder, who then claims without any read-modify-write.
    ///
    /// # Errors
    /// [`Held`] while another guard lives.
    pub fn exclusive(&self) -> Result<Exclusive<'_, M, H>, Held> {
        let mut tail = self.tail.position.load(Ordering::Relaxed);
        loop {
            if tail & HELD != 0 {
                return Err(Held);
            }
            let taken =
                self.tail.position.compare_exchange_weak(tail, tail | HELD, Ordering::Relaxed, Ordering::Relaxed);
            match taken {
                // SYNC known-head: pairs with Producer::raise_known_head.
                Ok(_) => {
                    return Ok(Exclusive::new(self, tail, self.known_head.load(Ordering::Acquire)));
                }
                Err(now) => tail = now,
            }
        }
    }

    /// Whether an [`Exclusive`] guard holds the tail now. Relaxed, as every access to the tail.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.tail.position.load(Ordering::Relaxed) & HELD != 0
    }

    /// The end of the last claim; while a guard is held, of the last claim before it.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.tail.position.load(Ordering::Relaxed) & !HELD
    }

    /// The ring's memory.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The size of the frame for a payload, if there is such a frame.
    #[inline(always)]
    pub(crate) fn frame_size(&self, len: usize) -> Result<usize, ClaimError> {
        let max = self.max_payload();
        if len > max {
            return Err(ClaimError::TooLarge { len, max });
        }
        Ok(frame_size(len))
    }

    /// Lays out a claim from `tail`, colliding lines included, given that the consumer has
    /// released everything before `head`. Exact if the tail is still `tail` afterwards.
    #[inline(always)]
    pub(crate) fn lay(&self, tail: u64, size: usize, head: u64) -> Result<Span, NoSpace> {
        let capacity = self.memory.capacity();
        let mut span = Span::lay(tail, size, capacity);
        if !fits(span.end, head, capacity) {
            return Err(NoSpace { wanted: wanted(span.end, capacity) });
        }
        if self.collides(span.end, capacity) {
            span.end = self.pass_collisions(span.end, head)?;
        }
        Ok(span)
    }

    /// Whether the consumer, waiting at `end`, would take the stale word there for a stamp.
    #[inline(always)]
    fn collides(&self, end: u64, capacity: Capacity) -> bool {
        self.memory.load(capacity.offset(end)) == self.key.stamp(end)
    }

    /// The first position from `end` that does not collide.
    #[cold]
    #[inline(never)]
    fn pass_collisions(&self, mut end: u64, head: u64) -> Result<u64, NoSpace> {
        let capacity = self.memory.capacity();
        while self.collides(end, capacity) {
            end = end.wrapping_add(LINE_STEP);
            if !fits(end, head, capacity) {
                return Err(NoSpace { wanted: wanted(end, capacity) });
            }
        }
        Ok(end)
    }

    #[inline(always)]
    fn advance(&self, from: u64, to: u64) -> bool {
        let exchanged = self.tail.position.compare_exchange_weak(from, to, Ordering::Relaxed, Ordering::Relaxed);
        exchanged.is_ok()
    }

    /// Raises the known head, unless another thread has raised it further. Not `fetch_max`, which
    /// would be wrong where positions wrap.
    fn raise_known_head(&self, head: u64) {
        let mut known = self.known_head.load(Ordering::Relaxed);
        while !reached(known, head) {
            // SYNC known-head: pairs with Producer::try_claim.
            let raised = self.known_head.compare_exchange_weak(known, head, Ordering::Release, Ordering::Relaxed);
            match raised {
                Ok(_) => return,
                Err(now) => known = now,
            }
        }
    }

    /// Ends the guard. Relaxed: the tail publishes no bytes.
    #[inline]
    pub(crate) fn release_tail(&self, tail: u64) {
        self.tail.position.store(tail, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn key(&self) -> Key {
        self.key
    }
}

/// Checks a head that the consumer published: at a line, not behind `known`, not beyond `tail`.
fn check_head(found: u64, known: u64, tail: u64) -> Result<u64, CorruptHead> {
    if !found.is_multiple_of(LINE_STEP) {
        return Err(CorruptHead::Misaligned { found });
    }
    if found.wrapping_sub(known) <= tail.wrapping_sub(known) {
        return Ok(found);
    }
    if reached(found, known) {
        Err(CorruptHead::Beyond { found, tail })
    } else {
        Err(CorruptHead::Backwards { found, known })
    }
}

impl<M, H> fmt::Debug for Producer<M, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("tail", &self.tail.position)
            .field("known_head", &self.known_head)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_accepted_only_between_the_known_one_and_the_tail() {
        for known in [0, 6400, u64::MAX - 63, u64::MAX - 6463] {
            let at = |distance: u64| known.wrapping_add(distance);
            for honest in [0, 64, 640] {
                assert_eq!(check_head(at(honest), known, at(640)), Ok(at(honest)));
            }
            let found = at(704);
            assert_eq!(check_head(found, known, at(640)), Err(CorruptHead::Beyond { found, tail: at(640) }));
            let found = known.wrapping_sub(64);
            assert_eq!(check_head(found, known, at(640)), Err(CorruptHead::Backwards { found, known }));
            let found = at(8);
            assert_eq!(check_head(found, known, at(640)), Err(CorruptHead::Misaligned { found }));
        }
    }
}
