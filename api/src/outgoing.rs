//! The channels that this endpoint sends on: each name and set of types gets a 16-bit id, once, which is what frames
//! carry.
//!
//! The table only grows. A send looks its channel up without a lock, by the hash that the channel's constant carries:
//! open addressing over ids, then one comparison with the entry found.

use std::{
    any::TypeId,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use memit_engine::MAX_CHANNEL_NAME;

use crate::{ChannelError, emitter::table::Signature};

/// As many channels as one endpoint can send on; peers admit no more.
const MAX_CHANNELS: usize = memit_engine::MAX_CHANNELS as usize;
/// Bytes of schema text of one type; peers admit no more.
const MAX_SCHEMA: usize = 64 << 10;
/// Bytes of schema text that one side of a connection may announce in all; a program with more types than that on its
/// channels is not known.
pub(crate) const MAX_SCHEMAS: usize = 4 << 20;
/// Twice as many, so that half of the places stay empty and a lookup ends soon.
const PLACES: usize = 2 * MAX_CHANNELS;
const CHUNK: usize = 64;
type Chunk = Box<[OnceLock<Outlet>]>;

const EXHAUSTED: ChannelError = ChannelError::TooMany { max: MAX_CHANNELS };

/// One channel that this endpoint sends on.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) id: u16,
    pub(crate) name: Box<str>,
    pub(crate) signature: Signature,
    key: u64,
    types: TypeId,
}

/// All channels that this endpoint sends on.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// An id plus one, or zero where nothing is yet.
    places: Box<[AtomicU16]>,
    /// By id, in chunks that are made when the first of their ids is given out.
    outlets: Box<[OnceLock<Chunk>]>,
    /// Locked to give out one more id.
    given: Mutex<Given>,
}

/// What is given out already.
#[derive(Debug, Default)]
struct Given {
    ids: usize,
    /// What all their schemas have together, which a peer may come to hear.
    schema_bytes: usize,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU16::new(0)).collect(),
            outlets: (0..MAX_CHANNELS / CHUNK).map(|_| OnceLock::new()).collect(),
            given: Mutex::default(),
        }
    }
}

impl Outgoing {
    /// The outlet of the channel `name` with the types `types`, whose name hashes to `key`. A new one asks `signature`
    /// for its schemas.
    #[inline(always)]
    pub(crate) fn outlet(
        &self,
        key: u64,
        name: &str,
        types: TypeId,
        signature: impl FnOnce() -> Signature,
    ) -> Result<&Outlet, ChannelError> {
        match self.find(key, name, types) {
            Ok(outlet) => Ok(outlet),
            Err(_) => self.add(key, name, types, signature()),
        }
    }

    /// The outlet, or the empty place where it would stand.
    #[inline]
    fn find(&self, key: u64, name: &str, types: TypeId) -> Result<&Outlet, Option<&AtomicU16>> {
        for place in self.probe(key) {
            // SYNC outlet: pairs with Outgoing::add.
            let Some(id) = place.load(Ordering::Acquire).checked_sub(1) else { return Err(Some(place)) };
            if let Some(outlet) = self.by_id(id.into())
                && outlet.key == key
                && outlet.types == types
                && *outlet.name == *name
            {
                return Ok(outlet);
            }
        }
        Err(None)
    }

    #[cold]
    fn add(&self, key: u64, name: &str, types: TypeId, signature: Signature) -> Result<&Outlet, ChannelError> {
        check(name, &signature)?;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have added it since the caller looked; under the lock nobody does.
        let place = match self.find(key, name, types) {
            Ok(outlet) => return Ok(outlet),
            Err(place) => place.ok_or(EXHAUSTED)?,
        };
        let id = u16::try_from(given.ids).map_err(|_| EXHAUSTED)?;
        let chunk = self.outlets.get(given.ids / CHUNK).ok_or(EXHAUSTED)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        let cell = chunk.get(given.ids % CHUNK).ok_or(EXHAUSTED)?;
        let schema_bytes = given.schema_bytes + signature.len();
        if schema_bytes > MAX_SCHEMAS {
            return Err(ChannelError::SchemasTooLong { len: schema_bytes, max: MAX_SCHEMAS });
        }
        let outlet = cell.get_or_init(|| Outlet { id, name: name.into(), signature, key, types });
        *given = Given { ids: given.ids + 1, schema_bytes };
        // SYNC outlet: pairs with Outgoing::find.
        place.store(id + 1, Ordering::Release);
        Ok(outlet)
    }

    #[inline]
    fn by_id(&self, id: usize) -> Option<&Outlet> {
        self.outlets.get(id / CHUNK)?.get()?.get(id % CHUNK)?.get()
    }

    /// The places where a channel with that key may stand, in order.
    #[inline]
    fn probe(&self, key: u64) -> impl Iterator<Item = &AtomicU16> {
        // The high half is folded in: a hash's low bits alone say little about a name's first letters.
        let start = usize::try_from((key ^ (key >> 32)) & 0xffff_ffff).unwrap_or(0);
        (0..PLACES).filter_map(move |step| self.places.get((start + step) % PLACES))
    }
}

/// Whether a peer would admit the channel; it disconnects one who announces what it does not admit.
fn check(name: &str, signature: &Signature) -> Result<(), ChannelError> {
    if name.len() > MAX_CHANNEL_NAME {
        return Err(ChannelError::NameTooLong { len: name.len(), max: MAX_CHANNEL_NAME });
    }
    let len = [&signature.message, &signature.reply, &signature.error]
        .map(|schema| schema.len())
        .into_iter()
        .max()
        .unwrap_or(0);
    if len > MAX_SCHEMA { Err(ChannelError::SchemaTooLong { len, max: MAX_SCHEMA }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlet<'o>(outgoing: &'o Outgoing, key: u64, name: &str, types: TypeId) -> Result<&'o Outlet, ChannelError> {
        outgoing.outlet(key, name, types, Signature::default)
    }

    #[test]
    fn a_channel_keeps_its_id() {
        let outgoing = Outgoing::default();
        let (u32s, u64s) = (TypeId::of::<u32>(), TypeId::of::<u64>());
        let first = outlet(&outgoing, 7, "a", u32s).unwrap();
        assert_eq!(first.id, 0);
        assert_eq!(outlet(&outgoing, 9, "b", u32s).unwrap().id, 1);
        assert_eq!(outlet(&outgoing, 7, "a", u64s).unwrap().id, 2, "other types make another channel");
        assert_eq!(outlet(&outgoing, 7, "a", u32s).unwrap().id, 0);
    }

    #[test]
    fn names_whose_hashes_are_equal_stay_apart() {
        let outgoing = Outgoing::default();
        let types = TypeId::of::<u32>();
        let a = outlet(&outgoing, 7, "a", types).unwrap().id;
        let b = outlet(&outgoing, 7, "b", types).unwrap().id;
        assert_ne!(a, b);
        assert_eq!(outlet(&outgoing, 7, "b", types).unwrap().id, b);
    }

    #[test]
    fn ids_run_out_and_those_given_stay_good() {
        let outgoing = Outgoing::default();
        let types = TypeId::of::<u32>();
        let key = |n: usize| n as u64 % 512 * 16;
        for n in 0..MAX_CHANNELS {
            // Eight names to a key, so that probing has to step over others.
            assert_eq!(usize::from(outlet(&outgoing, key(n), &n.to_string(), types).unwrap().id), n);
        }
        assert_eq!(outlet(&outgoing, 1, "one more", types).unwrap_err(), EXHAUSTED);
        assert_eq!(outlet(&outgoing, key(4087), "4087", types).unwrap().id, 4087);
    }

    #[test]
    fn what_no_peer_would_admit_is_refused_here() {
        let outgoing = Outgoing::default();
        let types = TypeId::of::<u32>();
        let name = "n".repeat(MAX_CHANNEL_NAME + 1);
        let long = outlet(&outgoing, 1, &name, types).unwrap_err();
        assert_eq!(long, ChannelError::NameTooLong { len: 1025, max: 1024 });
        let signature = || Signature { reply: vec![b'x'; MAX_SCHEMA + 1].into(), ..Signature::default() };
        let long = outgoing.outlet(1, "a", types, signature).unwrap_err();
        assert_eq!(long, ChannelError::SchemaTooLong { len: MAX_SCHEMA + 1, max: MAX_SCHEMA });
    }

    #[test]
    fn schemas_that_are_too_long_together_are_refused_here_and_the_others_stay_good() {
        let outgoing = Outgoing::default();
        let types = TypeId::of::<u32>();
        let of = |len: usize| move || Signature { message: vec![b'x'; len].into(), ..Signature::default() };
        for n in 0..64u64 {
            outgoing.outlet(n, &n.to_string(), types, of(MAX_SCHEMA)).unwrap();
        }
        let refused = outgoing.outlet(99, "one more", types, of(1)).unwrap_err();
        assert_eq!(refused, ChannelError::SchemasTooLong { len: MAX_SCHEMAS + 1, max: MAX_SCHEMAS });
        assert_eq!(outgoing.outlet(63, "63", types, of(MAX_SCHEMA)).unwrap().id, 63);
        assert_eq!(outgoing.outlet(100, "of no length", types, of(0)).unwrap().id, 64);
    }

    #[test]
    fn threads_that_meet_a_channel_at_once_agree_on_its_id() {
        let outgoing = Outgoing::default();
        let ids = || (0..512u64).map(|n| outlet(&outgoing, n, &n.to_string(), TypeId::of::<u32>()).unwrap().id);
        let ids = || ids().collect::<Vec<_>>();
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(ids);
            (ids(), other.join().unwrap())
        });
        assert_eq!(one, other);
    }
}
