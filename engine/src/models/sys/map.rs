//! Shared memory: the words of it that a model uses, which are loom's atomics. All are there from the start: loom would
//! take it for a message if one thread made a word that another finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Words by their offsets.
#[derive(Debug)]
struct Memory {
    words: BTreeMap<usize, AtomicU64>,
    bells: BTreeMap<usize, AtomicU32>,
}

/// The map of who writes.
#[derive(Clone, Debug)]
pub(crate) struct ReadWriteMap(Arc<Memory>);

/// The map of who reads.
#[derive(Clone, Debug)]
pub(crate) struct ReadOnlyMap(Arc<Memory>);

/// No model has any.
#[derive(Debug)]
pub(crate) enum SealedMap {}

impl ReadWriteMap {
    pub(crate) fn new(words: &[usize], bells: &[usize]) -> Self {
        let words = words.iter().map(|at| (*at, AtomicU64::new(0))).collect();
        let bells = bells.iter().map(|at| (*at, AtomicU32::new(0))).collect();
        Self(Arc::new(Memory { words, bells }))
    }

    pub(crate) fn to_read(&self) -> ReadOnlyMap {
        ReadOnlyMap(Arc::clone(&self.0))
    }

    pub(crate) fn word64(&self, offset: usize) -> &AtomicU64 {
        &self.0.words[&offset]
    }

    pub(crate) fn word32(&self, offset: usize) -> &AtomicU32 {
        &self.0.bells[&offset]
    }

    /// Nothing that a model could see.
    pub(crate) fn prefetch(&self, _: usize) {}

    /// Writes the first eight bytes, which stand for all: a model tells payloads apart by them.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        if let Some(first) = from.first_chunk() {
            self.word64(offset).store(u64::from_le_bytes(*first), Ordering::Relaxed);
        }
    }
}

impl ReadOnlyMap {
    pub(crate) fn load64(&self, offset: usize) -> u64 {
        self.0.words[&offset].load(Ordering::Relaxed)
    }

    pub(crate) fn futex_word(&self, offset: usize) -> &AtomicU32 {
        &self.0.bells[&offset]
    }

    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) {
        if let Some(first) = to.first_chunk_mut() {
            *first = self.load64(offset).to_le_bytes();
        }
    }

    pub(crate) fn region(&self, _: usize, _: usize) -> std::ptr::NonNull<u8> {
        unreachable!("no model reads a block in place")
    }
}

impl SealedMap {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match *self {}
    }
}
