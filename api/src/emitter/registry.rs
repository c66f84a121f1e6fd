//! The shared side of the emitter: who listens where, changed by any thread at any time.
//!
//! While nobody dispatches, the listeners' [`Table`] lies here and changes are applied at once. A dispatcher takes the
//! table with it; changes then wait in a list that it fetches between two messages, so a listener that runs sees its
//! own changes take effect with the next message, and an emit is a snapshot. Per message the dispatcher reads one word,
//! the version.
//!
//! No listener is called or dropped under the lock: both are user code and may come back here.

use std::{
    collections::HashMap,
    mem,
    num::NonZeroU64,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::table::{Change, Listener, ListenerId, Place, Table, Topic};

/// The listeners of one endpoint.
#[derive(Debug)]
pub(crate) struct Registry<F> {
    /// Raised under the lock by every change; read by the dispatcher before each emit.
    version: AtomicU64,
    state: Mutex<State<F>>,
}

#[derive(Debug)]
struct State<F> {
    rolls: HashMap<Topic, Roll>,
    topics: HashMap<ListenerId, Topic>,
    next_roll: u64,
    /// Here while nobody dispatches.
    home: Option<Box<Table<F>>>,
    /// Changes that a dispatcher has yet to fetch.
    changes: Vec<Change<F>>,
    closed: bool,
}

/// Who listens to one topic; it goes when the last listener does.
#[derive(Debug)]
struct Roll {
    /// Rises with every new roll, so it gives the order in which the topics appeared.
    since: u64,
    ids: Vec<ListenerId>,
}

/// Whether a removal took place, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nothing to remove.
    Nothing,
    /// Removed and dropped.
    Done,
    /// Removed; the dispatcher drops the listener between two messages.
    Pending,
}

/// Listeners that were removed, for whoever removed them to drop where user code may run.
///
/// A listener's drop may panic. The first such panic comes out when all are dropped, unless the thread unwinds from
/// another one already, which two at once would turn into the end of the process.
#[derive(Debug)]
#[must_use = "dropping it runs user code"]
pub(crate) struct Removed<F>(Vec<Listener<F>>);

impl<F> Drop for Removed<F> {
    fn drop(&mut self) {
        let mut first = None;
        for listener in mem::take(&mut self.0) {
            match panic::catch_unwind(AssertUnwindSafe(|| drop(listener))) {
                Err(panic) if first.is_none() => first = Some(panic),
                // What a panic carries may panic when it is dropped, too.
                Err(panic) => mem::forget(panic),
                Ok(()) => {}
            }
        }
        match first {
            Some(panic) if thread::panicking() => mem::forget(panic),
            Some(panic) => panic::resume_unwind(panic),
            None => {}
        }
    }
}

impl<F> Default for Registry<F> {
    fn default() -> Self {
        Self { version: AtomicU64::new(0), state: Mutex::default() }
    }
}

impl<F> Default for State<F> {
    fn default() -> Self {
        Self {
            rolls: HashMap::new(),
            topics: HashMap::new(),
            next_roll: 0,
            home: Some(Box::default()),
            changes: Vec::new(),
            closed: false,
        }
    }
}

impl<F> Registry<F> {
    /// Adds a listener. A closed registry drops it instead.
    pub(crate) fn add(&self, topic: Topic, place: Place, listener: Listener<F>) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            drop(listener);
            return;
        }
        state.enroll(&topic, listener.id, place);
        self.change(&mut state, Change::Add(topic, place, listener));
    }

    /// Removes the listener `id`, on `topic` only if one is given.
    pub(crate) fn remove(&self, topic: Option<&Topic>, id: ListenerId) -> Removal {
        let mut state = self.lock();
        match state.topics.get(&id) {
            Some(found) if topic.is_none_or(|t| t == found) => {}
            _ => return Removal::Nothing,
        }
        let Some(topic) = state.strike(id) else { return Removal::Nothing };
        let pending = state.home.is_none();
        let removed = self.change(&mut state, Change::Remove(topic, id));
        drop(state);
        drop(removed);
        if pending { Removal::Pending } else { Removal::Done }
    }

    /// Removes every listener whose topic satisfies `of`.
    pub(crate) fn remove_all(&self, of: impl Fn(&Topic) -> bool) -> Removal {
        let mut state = self.lock();
        let ids: Vec<_> =
            state.rolls.iter().filter(|(topic, _)| of(topic)).flat_map(|(_, roll)| roll.ids.clone()).collect();
        if ids.is_empty() {
            return Removal::Nothing;
        }
        let pending = state.home.is_none();
        let mut removed = Vec::new();
        for id in ids {
            if let Some(topic) = state.strike(id) {
                removed.extend(self.change(&mut state, Change::Remove(topic, id)));
            }
        }
        drop(state);
        drop(Removed(removed));
        if pending { Removal::Pending } else { Removal::Done }
    }

    /// How many listeners `topic` has.
    pub(crate) fn count(&self, topic: &Topic) -> usize {
        self.lock().rolls.get(topic).map_or(0, |roll| roll.ids.len())
    }

    /// The names of the channels that have listeners, in the order in which they got their first one.
    pub(crate) fn channel_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = {
            let state = self.lock();
            let channels = state.rolls.iter().filter_map(|(topic, roll)| match topic {
                Topic::Channel(name) => Some((roll.since, Arc::clone(name))),
                _ => None,
            });
            channels.collect()
        };
        names.sort_unstable_by_key(|&(since, _)| since);
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// Takes the table for dispatching; `None` while another dispatcher has it.
    pub(crate) fn take(&self) -> Option<Box<Table<F>>> {
        self.lock().home.take()
    }

    /// Gives the table back, with the changes made meanwhile. What was removed comes out and is the caller's to drop,
    /// once its own state is in order.
    pub(crate) fn give_back(&self, mut table: Box<Table<F>>) -> Removed<F> {
        let mut state = self.lock();
        let mut removed: Vec<_> = mem::take(&mut state.changes).into_iter().filter_map(|c| table.apply(c)).collect();
        if state.closed {
            removed.extend(table.clear());
        }
        table.seen = self.version.load(Ordering::Relaxed);
        state.home = Some(table);
        Removed(removed)
    }

    /// Whether a table that was taken shows all that changed.
    #[inline]
    pub(crate) fn is_fresh(&self, table: &Table<F>) -> bool {
        // SYNC registry-change: pairs with Registry::change. An addition that happened before a message was sent is
        // seen when the message is met.
        self.version.load(Ordering::Acquire) == table.seen
    }

    /// Brings a table that was taken up to date. What was removed comes out and is the caller's to drop, once its own
    /// state is in order.
    #[inline]
    pub(crate) fn refresh(&self, table: &mut Table<F>) -> Removed<F> {
        if self.is_fresh(table) { Removed(Vec::new()) } else { self.fetch(table) }
    }

    /// Drops every listener, now or when the dispatcher gives the table back, and takes no more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.rolls.clear();
        state.topics.clear();
        let unapplied = mem::take(&mut state.changes).into_iter().filter_map(|change| match change {
            Change::Add(_, _, listener) => Some(listener),
            Change::Remove(..) => None,
        });
        let mut removed = Removed(unapplied.collect());
        if let Some(table) = &mut state.home {
            removed.0.extend(table.clear());
        }
        // SYNC registry-change: pairs with Registry::is_fresh.
        self.version.fetch_add(1, Ordering::Release);
        drop(state);
        drop(removed);
    }

    /// Keeps every listener from ever being dropped. Takes no lock.
    pub(crate) fn leak(&mut self) {
        mem::forget(mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner)));
    }

    #[cold]
    fn fetch(&self, table: &mut Table<F>) -> Removed<F> {
        let (changes, closed) = {
            let mut state = self.lock();
            table.seen = self.version.load(Ordering::Relaxed);
            (mem::take(&mut state.changes), state.closed)
        };
        let mut removed: Vec<_> = changes.into_iter().filter_map(|change| table.apply(change)).collect();
        if closed {
            removed.extend(table.clear());
        }
        Removed(removed)
    }

    /// Applies a change where the table is, and returns what it removed.
    fn change(&self, state: &mut State<F>, change: Change<F>) -> Option<Listener<F>> {
        // SYNC registry-change: pairs with Registry::is_fresh.
        let version = self.version.fetch_add(1, Ordering::Release) + 1;
        match &mut state.home {
            Some(table) => {
                table.seen = version;
                table.apply(change)
            }
            None => {
                state.changes.push(change);
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> State<F> {
    fn enroll(&mut self, topic: &Topic, id: ListenerId, place: Place) {
        let since = self.next_roll;
        let roll = self.rolls.entry(topic.clone()).or_insert_with(|| Roll { since, ids: Vec::new() });
        if roll.ids.is_empty() {
            self.next_roll += 1;
        }
        match place {
            Place::First => roll.ids.insert(0, id),
            Place::Last => roll.ids.push(id),
        }
        self.topics.insert(id, topic.clone());
    }

    fn strike(&mut self, id: ListenerId) -> Option<Topic> {
        let topic = self.topics.remove(&id)?;
        if let Some(roll) = self.rolls.get_mut(&topic) {
            roll.ids.retain(|&listed| listed != id);
            if roll.ids.is_empty() {
                self.rolls.remove(&topic);
            }
        }
        Some(topic)
    }
}

impl ListenerId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(NonZeroU64::new(id).unwrap_or(NonZeroU64::MIN))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{atomic::AtomicUsize, mpsc};

    use super::*;
    use crate::emitter::table::Signature;

    type Names = Registry<&'static str>;

    fn insert<F>(registry: &Registry<F>, topic: Topic, place: Place, call: F) -> ListenerId {
        let id = ListenerId::next();
        registry.add(topic, place, Listener { id, signature: Signature::default(), call });
        id
    }

    fn add(registry: &Names, name: &str, call: &'static str) -> ListenerId {
        insert(registry, Topic::channel(name), Place::Last, call)
    }

    /// What would run for `name`, in order; `during` is called with each listener while the table is away.
    fn emit(registry: &Names, name: &str, mut during: impl FnMut(&'static str)) -> Vec<&'static str> {
        let mut table = registry.take().expect("nobody dispatches");
        drop(registry.refresh(&mut table));
        let seats: Vec<_> = table.listeners(&Topic::channel(name)).map(|(seat, _)| seat).collect();
        let mut ran = Vec::new();
        for seat in seats {
            let listener = table.listener(seat).expect("the table does not change during an emit");
            ran.push(listener.call);
            during(listener.call);
        }
        drop(registry.give_back(table));
        ran
    }

    fn run(registry: &Names, name: &str) -> Vec<&'static str> {
        emit(registry, name, |_| {})
    }

    #[test]
    fn listeners_run_in_registration_order_and_prepended_ones_before() {
        let registry = Names::default();
        add(&registry, "a", "1");
        add(&registry, "a", "2");
        add(&registry, "b", "other");
        insert(&registry, Topic::channel("a"), Place::First, "0");
        assert_eq!(run(&registry, "a"), ["0", "1", "2"]);
    }

    #[test]
    fn a_listener_added_during_an_emit_runs_from_the_next_one_on() {
        let registry = Names::default();
        add(&registry, "a", "1");
        let first = emit(&registry, "a", |_| {
            add(&registry, "a", "2");
        });
        assert_eq!(first, ["1"]);
        assert_eq!(run(&registry, "a"), ["1", "2"]);
    }

    #[test]
    fn a_listener_removed_during_an_emit_still_runs_in_it() {
        let registry = Names::default();
        add(&registry, "a", "1");
        let second = add(&registry, "a", "2");
        let ran = emit(&registry, "a", |_| {
            registry.remove(None, second);
        });
        assert_eq!(ran, ["1", "2"]);
        assert_eq!(run(&registry, "a"), ["1"]);
    }

    #[test]
    fn a_change_is_seen_by_a_table_that_is_away() {
        let registry = Names::default();
        let mut table = registry.take().expect("nobody dispatches");
        let id = add(&registry, "a", "1");
        assert_eq!(table.listeners(&Topic::channel("a")).count(), 0);
        assert!(registry.refresh(&mut table).0.is_empty());
        assert_eq!(table.listeners(&Topic::channel("a")).count(), 1);
        assert_eq!(registry.remove(None, id), Removal::Pending);
        assert_eq!(registry.refresh(&mut table).0.len(), 1);
        drop(registry.give_back(table));
        assert!(run(&registry, "a").is_empty());
    }

    #[test]
    fn a_second_dispatcher_gets_no_table() {
        let registry = Names::default();
        let table = registry.take();
        assert!(registry.take().is_none());
        drop(registry.give_back(table.expect("nobody dispatched")));
        assert!(registry.take().is_some());
    }

    #[test]
    fn names_keep_the_order_of_their_first_listener_and_vanish_with_the_last() {
        let registry = Names::default();
        let z = add(&registry, "z", "1");
        add(&registry, "a", "2");
        add(&registry, "m", "3");
        add(&registry, "a", "4");
        insert(&registry, Topic::Any, Place::Last, "any");
        insert(&registry, Topic::Error, Place::Last, "error");
        assert_eq!(names(&registry), ["z", "a", "m"]);
        registry.remove(None, z);
        assert_eq!(names(&registry), ["a", "m"]);
        add(&registry, "z", "5");
        assert_eq!(names(&registry), ["a", "m", "z"]);
    }

    fn names(registry: &Names) -> Vec<String> {
        registry.channel_names().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn removing_all_of_one_channel_leaves_the_others() {
        let registry = Names::default();
        let a = add(&registry, "a", "1");
        add(&registry, "a", "2");
        let b = add(&registry, "b", "3");
        assert_eq!(registry.remove_all(|t| *t == Topic::channel("a")), Removal::Done);
        assert_eq!(registry.remove(None, a), Removal::Nothing);
        assert_eq!(run(&registry, "b"), ["3"]);
        assert_eq!(registry.remove(Some(&Topic::channel("a")), b), Removal::Nothing, "b is not on that channel");
        assert_eq!(registry.remove(Some(&Topic::channel("b")), b), Removal::Done);
        assert!(registry.channel_names().is_empty());
    }

    #[test]
    fn removing_all_messages_leaves_the_typed_topics() {
        let registry = Names::default();
        add(&registry, "a", "1");
        insert(&registry, Topic::Any, Place::Last, "any");
        insert(&registry, Topic::Error, Place::Last, "error");
        registry.remove_all(Topic::takes_messages);
        assert_eq!(registry.count(&Topic::Any), 0);
        assert_eq!(registry.count(&Topic::Error), 1);
    }

    /// Counts drops, and asks the registry from inside its drop.
    struct Asks(Arc<Registry<Option<Asks>>>, Arc<AtomicUsize>);

    impl Drop for Asks {
        fn drop(&mut self) {
            self.0.count(&Topic::channel("a"));
            insert(&self.0, Topic::channel("b"), Place::Last, None);
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_dropped_listener_may_use_the_registry() {
        let registry = Arc::new(Registry::default());
        let drops = Arc::new(AtomicUsize::new(0));
        let add = || {
            let asks = Asks(Arc::clone(&registry), Arc::clone(&drops));
            insert(&registry, Topic::channel("a"), Place::Last, Some(asks))
        };
        let id = add();
        registry.remove(None, id);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        add();
        registry.remove_all(|_| true);
        assert_eq!(drops.load(Ordering::Relaxed), 2);

        let table = registry.take().expect("nobody dispatches");
        let away = add();
        registry.remove(None, away);
        assert_eq!(drops.load(Ordering::Relaxed), 2, "it waits for the dispatcher");
        drop(registry.give_back(table));
        assert_eq!(drops.load(Ordering::Relaxed), 3);

        add();
        registry.close();
        assert_eq!(drops.load(Ordering::Relaxed), 4);
        add();
        assert_eq!(drops.load(Ordering::Relaxed), 5, "a closed registry keeps nothing");
    }

    #[test]
    fn closing_while_the_table_is_away_drops_the_listeners_when_it_comes_back() {
        let registry = Arc::new(Registry::default());
        let drops = Arc::new(AtomicUsize::new(0));
        let asks = Asks(Arc::clone(&registry), Arc::clone(&drops));
        insert(&registry, Topic::channel("a"), Place::Last, Some(asks));
        let table = registry.take().expect("nobody dispatches");
        registry.close();
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(registry.give_back(table));
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert!(registry.channel_names().is_empty());
    }

    struct Panics(mpsc::Sender<()>);

    impl Drop for Panics {
        fn drop(&mut self) {
            let _ = self.0.send(());
            std::panic::resume_unwind(Box::new("dropped"));
        }
    }

    #[test]
    fn a_drop_that_panics_keeps_no_other_from_being_dropped_and_is_told_once() {
        let registry = Registry::default();
        let (dropped, drops) = mpsc::channel();
        for _ in 0..3 {
            insert(&registry, Topic::channel("a"), Place::Last, Panics(dropped.clone()));
        }
        let panic = panic::catch_unwind(AssertUnwindSafe(|| registry.remove_all(|_| true))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"dropped"));
        assert_eq!(drops.try_iter().count(), 3);
        assert!(registry.channel_names().is_empty());
    }

    #[test]
    fn a_drop_that_panics_during_another_panic_is_not_the_end() {
        let registry = Registry::default();
        let (dropped, drops) = mpsc::channel();
        let table = registry.take().expect("nobody dispatches");
        let id = insert(&registry, Topic::channel("a"), Place::Last, Panics(dropped));
        registry.remove(None, id);
        let panic = panic::catch_unwind(AssertUnwindSafe(|| {
            let _removed = registry.give_back(table);
            panic::resume_unwind(Box::new("a listener"));
        }));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"a listener"));
        assert_eq!(drops.try_iter().count(), 1);
    }
}
