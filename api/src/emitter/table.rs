//! The dispatcher's side of the emitter: the listeners themselves, in the order in which they run.
//!
//! A table belongs to whoever dispatches, so calling a listener takes no lock. It knows nothing of threads, peers or
//! bytes: `F` is whatever a listener is called through.

use std::{collections::HashMap, mem, num::NonZeroU64, sync::Arc};

/// Names one registered listener, for [`Emitter::off`](crate::Emitter::off) and
/// [`Emitter::remove_listener`](crate::Emitter::remove_listener).
///
/// Ids are never used again within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub(super) NonZeroU64);

/// What a listener listens to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// The channel of that name.
    Channel(Arc<str>),
    /// Every dynamic channel, whatever its name.
    Any,
    /// What went wrong while dispatching.
    Error,
    /// A peer that arrived.
    Connect,
    /// A peer that is gone.
    Disconnect,
}

impl Topic {
    pub(crate) fn channel(name: &str) -> Self {
        Self::Channel(name.into())
    }

    /// Whether a peer's messages can reach the listeners here.
    pub(crate) fn takes_messages(&self) -> bool {
        matches!(self, Self::Channel(_) | Self::Any)
    }
}

/// The three schema texts of a channel: what its messages, its return values and its errors look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Signature {
    pub(crate) message: Arc<[u8]>,
    pub(crate) reply: Arc<[u8]>,
    pub(crate) error: Arc<[u8]>,
}

impl Signature {
    /// Bytes of the three together.
    pub(crate) fn len(&self) -> usize {
        self.message.len() + self.reply.len() + self.error.len()
    }
}

/// Where in its topic a new listener stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    Last,
}

/// One registered listener.
#[derive(Debug)]
pub(crate) struct Listener<F> {
    pub(crate) id: ListenerId,
    /// Empty for topics that do not take messages.
    pub(crate) signature: Signature,
    pub(crate) call: F,
}

/// One change to the table, made by any thread.
#[derive(Debug)]
pub(super) enum Change<F> {
    Add(Topic, Place, Listener<F>),
    Remove(Topic, ListenerId),
}

/// Where a listener lies in its [`Table`]; good until the next change is applied.
pub(crate) type Seat = usize;

/// The listeners of one endpoint.
#[derive(Debug)]
pub(crate) struct Table<F> {
    /// The registry's version up to which changes are in.
    pub(super) seen: u64,
    seats: Vec<Option<Listener<F>>>,
    free: Vec<Seat>,
    order: HashMap<Topic, Vec<Seat>>,
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Self { seen: 0, seats: Vec::new(), free: Vec::new(), order: HashMap::new() }
    }
}

impl<F> Table<F> {
    /// The version of the registry that this table shows; what was resolved at another one is stale.
    pub(crate) fn version(&self) -> u64 {
        self.seen
    }

    /// The listeners of `topic`, in the order in which they run.
    pub(crate) fn listeners(&self, topic: &Topic) -> impl Iterator<Item = (Seat, &Listener<F>)> {
        let seats = self.order.get(topic).map_or(&[][..], Vec::as_slice);
        seats.iter().filter_map(|&seat| Some((seat, self.seats.get(seat)?.as_ref()?)))
    }

    /// The listener at `seat`.
    pub(crate) fn listener(&mut self, seat: Seat) -> Option<&mut Listener<F>> {
        self.seats.get_mut(seat)?.as_mut()
    }

    /// Applies one change and hands out the listener that it removed, which the caller drops where user code may run.
    pub(super) fn apply(&mut self, change: Change<F>) -> Option<Listener<F>> {
        match change {
            Change::Add(topic, place, listener) => {
                let seat = self.seat(listener);
                let order = self.order.entry(topic).or_default();
                match place {
                    Place::First => order.insert(0, seat),
                    Place::Last => order.push(seat),
                }
                None
            }
            Change::Remove(topic, id) => {
                let (at, seat) = self
                    .listeners(&topic)
                    .enumerate()
                    .find_map(|(at, (seat, l))| (l.id == id).then_some((at, seat)))?;
                if let Some(order) = self.order.get_mut(&topic) {
                    order.remove(at);
                    if order.is_empty() {
                        self.order.remove(&topic);
                    }
                }
                self.free.push(seat);
                self.seats.get_mut(seat)?.take()
            }
        }
    }

    /// Empties the table and hands out what was in it.
    pub(super) fn clear(&mut self) -> Vec<Listener<F>> {
        self.order.clear();
        self.free.clear();
        mem::take(&mut self.seats).into_iter().flatten().collect()
    }

    fn seat(&mut self, listener: Listener<F>) -> Seat {
        if let Some(seat) = self.free.pop()
            && let Some(empty) = self.seats.get_mut(seat)
        {
            *empty = Some(listener);
            return seat;
        }
        self.seats.push(Some(listener));
        self.seats.len() - 1
    }
}
