//! Bytes aligned for any archive.

use std::fmt;
use std::ops::{Deref, DerefMut};

use zerocopy::IntoBytes;

/// A growable buffer of bytes that begins at a multiple of 16, which is the strictest alignment of a message.
///
/// ```
/// let mut bytes = memit_engine::AlignedBytes::new();
/// bytes.extend_from_slice(b"archive");
/// assert_eq!(bytes.as_slice(), b"archive");
/// assert_eq!(bytes.as_slice().as_ptr().addr() % memit_engine::AlignedBytes::ALIGNMENT, 0);
/// ```
#[derive(Clone, Default)]
pub struct AlignedBytes {
    /// Always initialised; at least `len` bytes.
    chunks: Vec<Chunk>,
    len: usize,
}

type Chunk = u128;

const CHUNK: usize = size_of::<Chunk>();
const _: () = assert!(align_of::<Chunk>() >= AlignedBytes::ALIGNMENT);

impl AlignedBytes {
    /// The alignment of the first byte.
    pub const ALIGNMENT: usize = 16;

    /// An empty buffer. Allocates nothing.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// An empty buffer that holds `capacity` bytes without allocating again.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Self::new();
        bytes.reserve(capacity);
        bytes
    }

    /// How many bytes it holds.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes it can hold without allocating again.
    pub fn capacity(&self) -> usize {
        self.chunks.capacity() * CHUNK
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.chunks.as_bytes()[..self.len]
    }

    /// The bytes, to be changed.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.chunks.as_mut_bytes()[..self.len]
    }

    /// Makes room for `additional` bytes more.
    pub fn reserve(&mut self, additional: usize) {
        let needed = self.len.saturating_add(additional).div_ceil(CHUNK);
        self.chunks.reserve(needed.saturating_sub(self.chunks.len()));
    }

    /// Makes it `len` bytes long, to be written over: what is new holds zeros, or bytes that it held before.
    #[inline]
    pub fn resize(&mut self, len: usize) {
        let needed = len.div_ceil(CHUNK);
        if needed > self.chunks.len() {
            self.chunks.resize(needed, 0);
        }
        self.len = len;
    }

    /// Makes it empty; the memory is kept.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends `bytes`.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let start = self.len;
        self.resize(start + bytes.len());
        self.as_mut_slice()[start..].copy_from_slice(bytes);
    }

    /// Gives back what memory lies behind `capacity` bytes, or behind the bytes that it holds if they are more.
    pub fn shrink_to(&mut self, capacity: usize) {
        let keep = capacity.max(self.len).div_ceil(CHUNK);
        self.chunks.truncate(keep);
        self.chunks.shrink_to(keep);
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl DerefMut for AlignedBytes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl From<&[u8]> for AlignedBytes {
    fn from(bytes: &[u8]) -> Self {
        let mut aligned = Self::new();
        aligned.extend_from_slice(bytes);
        aligned
    }
}

impl PartialEq for AlignedBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for AlignedBytes {}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_at_every_length() {
        let mut bytes = AlignedBytes::new();
        for len in (0..100).chain([4096, 65_537]) {
            bytes.resize(len);
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr().addr() % AlignedBytes::ALIGNMENT, 0);
        }
    }

    #[test]
    fn what_is_appended_in_pieces_is_there_in_order() {
        let pieces: [&[u8]; 4] = [b"", b"one", b"and a rather longer piece", b"x"];
        let mut bytes = AlignedBytes::with_capacity(8);
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        assert_eq!(bytes.as_slice(), pieces.concat());
    }

    #[test]
    fn growing_within_the_memory_it_has_allocates_nothing() {
        let mut bytes = AlignedBytes::with_capacity(1000);
        let (address, capacity) = (bytes.chunks.as_ptr(), bytes.capacity());
        for len in [1000, 0, 17, 999] {
            bytes.resize(len);
        }
        bytes.clear();
        assert_eq!((bytes.chunks.as_ptr(), bytes.capacity(), bytes.len()), (address, capacity, 0));
    }

    #[test]
    fn bytes_behind_the_end_are_not_compared() {
        let (mut one, two) = (AlignedBytes::from(&b"abcdef"[..]), AlignedBytes::from(&b"abc"[..]));
        one.resize(3);
        assert_eq!(one, two);
    }

    #[test]
    fn shrinking_keeps_the_bytes() {
        let mut bytes = AlignedBytes::with_capacity(1 << 20);
        bytes.extend_from_slice(b"kept");
        bytes.shrink_to(0);
        assert_eq!(bytes.as_slice(), b"kept");
        assert!(bytes.capacity() < 1 << 20);
    }
}
