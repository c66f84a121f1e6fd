//! What peers announced, resolved to listeners.
//!
//! A *kind* is a channel as a peer announced it: a name and three schemas. Peers that announce the same kind share one
//! entry, so that a thousand renderers cost one resolution. A message finds its kind by index, and its listeners by a
//! list that is built anew only when the table has changed.

use std::{collections::HashMap, sync::Arc};

use super::table::{Seat, Signature, Table, Topic};

/// An index into [`Kinds`]; good as long as its holder counts among the kind's users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KindId(usize);

/// All kinds that connected peers use.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    kinds: Vec<Option<Kind>>,
    free: Vec<usize>,
    /// By name and signature at once: a peer may announce thousands of signatures under one name.
    ids: HashMap<(Arc<str>, Signature), KindId>,
}

/// One announced channel.
#[derive(Debug)]
pub(crate) struct Kind {
    name: Arc<str>,
    signature: Signature,
    /// How many connections announced it.
    users: usize,
    route: Route,
}

/// Who hears a kind, as of one version of the table.
#[derive(Debug, Default)]
pub(crate) struct Route {
    /// `None` before the first.
    version: Option<u64>,
    /// Hear a message: the message's schema is theirs.
    messages: Vec<Seat>,
    /// Hear a call: all three schemas are theirs.
    calls: Vec<Seat>,
    /// The signatures of the listeners on that name that hear no call of this kind.
    others: Vec<Signature>,
}

impl Kinds {
    /// Finds or makes the kind of that name and signature, and counts one more user.
    pub(crate) fn enter(&mut self, name: &str, signature: &Signature) -> KindId {
        let key = (Arc::<str>::from(name), signature.clone());
        if let Some(&id) = self.ids.get(&key)
            && let Some(kind) = self.get(id)
        {
            kind.users += 1;
            return id;
        }
        let kind = Kind { name: Arc::clone(&key.0), signature: key.1.clone(), users: 1, route: Route::default() };
        let id = match self.free.pop() {
            Some(at) => {
                self.kinds[at] = Some(kind);
                KindId(at)
            }
            None => {
                self.kinds.push(Some(kind));
                KindId(self.kinds.len() - 1)
            }
        };
        self.ids.insert(key, id);
        id
    }

    /// Counts one user less; the last one takes the kind along.
    pub(crate) fn leave(&mut self, id: KindId) {
        let Some(entry) = self.kinds.get_mut(id.0) else { return };
        if let Some(kind) = entry
            && kind.users > 1
        {
            kind.users -= 1;
        } else if let Some(kind) = entry.take() {
            self.free.push(id.0);
            self.ids.remove(&(kind.name, kind.signature));
        }
    }

    pub(crate) fn get(&mut self, id: KindId) -> Option<&mut Kind> {
        self.kinds.get_mut(id.0)?.as_mut()
    }
}

impl Kind {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Brings the route up to date with `table`.
    #[inline]
    pub(crate) fn resolve<F>(&mut self, table: &Table<F>) {
        if self.route.version != Some(table.version()) {
            self.route = Route::new(&self.name, &self.signature, table);
        }
    }

    /// Who hears it; resolve it first.
    #[inline]
    pub(crate) fn seats(&self, call: bool) -> &[Seat] {
        if call { &self.route.calls } else { &self.route.messages }
    }

    /// The signatures that the listeners of that name have instead of this one.
    pub(crate) fn others(&self) -> &[Signature] {
        &self.route.others
    }
}

impl Route {
    #[cold]
    fn new<F>(name: &Arc<str>, signature: &Signature, table: &Table<F>) -> Self {
        let (mut messages, mut calls, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let named = Topic::Channel(Arc::clone(name));
        for topic in [&named, &Topic::Any] {
            for (seat, listener) in table.listeners(topic) {
                let theirs = &listener.signature;
                if theirs.message == signature.message {
                    messages.push(seat);
                }
                if theirs == signature {
                    calls.push(seat);
                } else if *topic == named && !others.contains(theirs) {
                    others.push(theirs.clone());
                }
            }
        }
        Self { version: Some(table.version()), messages, calls, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emitter::{
        registry::Registry,
        table::{Listener, ListenerId, Place},
    };

    fn signature(message: &str, reply: &str) -> Signature {
        Signature { message: message.as_bytes().into(), reply: reply.as_bytes().into(), error: [].into() }
    }

    fn add(
        registry: &Registry<&'static str>,
        topic: Topic,
        place: Place,
        signature: Signature,
        call: &'static str,
    ) -> ListenerId {
        let id = ListenerId::next();
        registry.add(topic, place, Listener { id, signature, call });
        id
    }

    fn heard(registry: &Registry<&'static str>, kind: &mut Kind, call: bool) -> Vec<&'static str> {
        let mut table = registry.take().expect("nobody dispatches");
        drop(registry.refresh(&mut table));
        kind.resolve(&table);
        let heard = kind.seats(call).iter().map(|&seat| table.listener(seat).expect("seats are fresh").call).collect();
        drop(registry.give_back(table));
        heard
    }

    #[test]
    fn a_message_needs_its_own_schema_and_a_call_all_three() {
        let registry = Registry::default();
        let on = |message, reply, call| {
            add(&registry, Topic::channel("a"), Place::Last, signature(message, reply), call);
        };
        on("u32", "()", "u32");
        on("u32", "i64", "u32 -> i64");
        on("str", "i64", "str -> i64");
        let mut kinds = Kinds::default();
        let id = kinds.enter("a", &signature("u32", "i64"));
        let kind = kinds.get(id).expect("entered");
        assert_eq!(heard(&registry, kind, false), ["u32", "u32 -> i64"]);
        assert_eq!(heard(&registry, kind, true), ["u32 -> i64"]);
        assert_eq!(kind.others(), [signature("u32", "()"), signature("str", "i64")]);
    }

    #[test]
    fn a_route_follows_the_table() {
        let registry = Registry::default();
        let mut kinds = Kinds::default();
        let id = kinds.enter("a", &signature("u32", "()"));
        let kind = kinds.get(id).expect("entered");
        assert!(heard(&registry, kind, false).is_empty());
        let one = add(&registry, Topic::channel("a"), Place::Last, signature("u32", "()"), "1");
        assert_eq!(heard(&registry, kind, false), ["1"]);
        add(&registry, Topic::channel("a"), Place::First, signature("u32", "()"), "0");
        registry.remove(None, one);
        assert_eq!(heard(&registry, kind, false), ["0"]);
    }

    #[test]
    fn listeners_on_any_channel_hear_their_signature_whatever_the_name_and_run_last() {
        let registry = Registry::default();
        add(&registry, Topic::Any, Place::Last, signature("args", "value"), "any");
        add(&registry, Topic::channel("a"), Place::Last, signature("args", "value"), "a");
        let mut kinds = Kinds::default();
        let mut heard_by = |name, message| {
            let id = kinds.enter(name, &signature(message, "value"));
            heard(&registry, kinds.get(id).expect("entered"), true)
        };
        assert_eq!(heard_by("a", "args"), ["a", "any"]);
        assert_eq!(heard_by("b", "args"), ["any"]);
        assert!(heard_by("b", "u32").is_empty());
    }

    #[test]
    fn many_signatures_of_one_name_stay_apart() {
        let of = |n: usize| signature(&format!("{:>1000}", n), "()");
        let mut kinds = Kinds::default();
        let ids: Vec<_> = (0..4096).map(|n| kinds.enter("a", &of(n))).collect();
        for (n, &id) in ids.iter().enumerate() {
            assert_eq!(kinds.enter("a", &of(n)), id);
            kinds.leave(id);
            assert!(kinds.get(id).is_some_and(|kind| *kind.signature() == of(n)));
            kinds.leave(id);
            assert!(kinds.get(id).is_none());
        }
        assert!(kinds.ids.is_empty());
    }

    #[test]
    fn a_kind_is_shared_and_goes_with_its_last_user() {
        let mut kinds = Kinds::default();
        let first = kinds.enter("a", &signature("u32", "()"));
        assert_eq!(kinds.enter("a", &signature("u32", "()")), first);
        assert_ne!(kinds.enter("a", &signature("u64", "()")), first);
        kinds.leave(first);
        assert!(kinds.get(first).is_some());
        kinds.leave(first);
        assert!(kinds.get(first).is_none());
        assert_eq!(kinds.enter("b", &signature("u32", "()")), first, "its place is used again");
        assert_eq!(kinds.get(first).map(|kind| &**kind.name()), Some("b"));
    }
}
