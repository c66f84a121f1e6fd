//! Listeners that come, go, and add and remove each other while they run, over a real connection; beside them a plain
//! model of Node's rules.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
};

use arbitrary::{Arbitrary, Unstructured};

use super::pair;
use crate::{Args, Emitter, IpcMain, IpcRenderer, ListenerId, args};

const NAMES: [&str; 3] = ["z", "a", "m"];
/// More are not added.
const MOST_LISTENERS: usize = 60;

#[derive(Arbitrary, Debug)]
struct Case {
    /// What listeners do when they run.
    scripts: Vec<Vec<Action>>,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Emit { name: u8 },
    Do(Action),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Action {
    Add {
        topic: Topic,
        first: bool,
        once: bool,
        script: u8,
    },
    Off {
        listener: u8,
    },
    /// Also where it does not listen.
    RemoveListener {
        name: u8,
        listener: u8,
    },
    RemoveAll {
        name: u8,
    },
    Clear,
    Look {
        name: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Topic {
    Named(u8),
    Any,
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Ran { listener: usize, on: String },
    Removed(bool),
    Found { count: usize, names: Vec<String> },
}

fn name(index: u8) -> &'static str {
    NAMES[usize::from(index) % NAMES.len()]
}

/// One side of the comparison.
trait Side {
    fn len(&self) -> usize;
    fn log(&mut self, entry: Entry);
    fn add(&mut self, topic: Topic, first: bool, once: bool, script: u8);
    fn off(&mut self, listener: usize) -> bool;
    fn remove_listener(&mut self, name: &'static str, listener: usize) -> bool;
    fn remove_all(&mut self, name: &'static str);
    fn clear(&mut self);
    fn count(&self, name: &'static str) -> usize;
    fn names(&self) -> Vec<String>;
}

fn perform(side: &mut impl Side, action: Action) {
    let pick = |listener: u8, len: usize| usize::from(listener).checked_rem(len);
    match action {
        Action::Add { topic, first, once, script } => {
            if side.len() < MOST_LISTENERS {
                side.add(topic, first, once, script);
            }
        }
        Action::Off { listener } => {
            if let Some(listener) = pick(listener, side.len()) {
                let removed = side.off(listener);
                side.log(Entry::Removed(removed));
            }
        }
        Action::RemoveListener { name: at, listener } => {
            if let Some(listener) = pick(listener, side.len()) {
                let removed = side.remove_listener(name(at), listener);
                side.log(Entry::Removed(removed));
            }
        }
        Action::RemoveAll { name: at } => side.remove_all(name(at)),
        Action::Clear => side.clear(),
        Action::Look { name: at } => {
            let entry = Entry::Found { count: side.count(name(at)), names: side.names() };
            side.log(entry);
        }
    }
}

/// What real listeners share.
#[derive(Default)]
struct World {
    scripts: Vec<Vec<Action>>,
    state: Mutex<(Vec<ListenerId>, Vec<Entry>)>,
}

struct Real<'a> {
    emitter: &'a Emitter,
    world: Arc<World>,
}

impl Real<'_> {
    fn id(&self, listener: usize) -> ListenerId {
        self.world.state.lock().unwrap().0[listener]
    }

    /// What the listener of that number does, on a channel of that name.
    fn run(emitter: &Emitter, world: &Arc<World>, listener: usize, script: u8, on: &str) {
        world.state.lock().unwrap().1.push(Entry::Ran { listener, on: on.to_owned() });
        let script = usize::from(script).checked_rem(world.scripts.len()).map(|index| world.scripts[index].clone());
        for action in script.unwrap_or_default() {
            perform(&mut Real { emitter, world: Arc::clone(world) }, action);
        }
    }
}

impl Side for Real<'_> {
    fn len(&self) -> usize {
        self.world.state.lock().unwrap().0.len()
    }

    fn log(&mut self, entry: Entry) {
        self.world.state.lock().unwrap().1.push(entry);
    }

    fn add(&mut self, topic: Topic, first: bool, once: bool, script: u8) {
        let (world, listener) = (Arc::clone(&self.world), self.len());
        let hear = move |event: &mut crate::Event<'_, Args, crate::Value>, _: &crate::ArchivedArgs| {
            Self::run(event.emitter(), &world, listener, script, event.channel());
        };
        let emitter = self.emitter;
        let id = match topic {
            Topic::Any => {
                let world = Arc::clone(&self.world);
                emitter.on_any(move |event, on, _| Self::run(event.emitter(), &world, listener, script, on))
            }
            Topic::Named(at) => match (first, once) {
                (false, false) => emitter.on(name(at), hear),
                (false, true) => emitter.once(name(at), hear),
                (true, false) => emitter.prepend_listener(name(at), hear),
                (true, true) => emitter.prepend_once_listener(name(at), hear),
            },
        };
        self.world.state.lock().unwrap().0.push(id);
    }

    fn off(&mut self, listener: usize) -> bool {
        self.emitter.off(self.id(listener))
    }

    fn remove_listener(&mut self, name: &'static str, listener: usize) -> bool {
        self.emitter.remove_listener(name, self.id(listener))
    }

    fn remove_all(&mut self, name: &'static str) {
        self.emitter.remove_all_listeners(name);
    }

    fn clear(&mut self) {
        self.emitter.clear_listeners();
    }

    fn count(&self, name: &'static str) -> usize {
        self.emitter.listener_count(name)
    }

    fn names(&self) -> Vec<String> {
        self.emitter.event_names()
    }
}

/// The rules, said plainly.
#[derive(Default)]
struct Model {
    /// The names that have listeners, in the order in which they got their first one; the empty name is any.
    topics: Vec<(&'static str, Vec<Listener>)>,
    listeners: usize,
    log: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Listener {
    number: usize,
    once: bool,
    script: u8,
}

const ANY: &str = "";

impl Model {
    fn emit(&mut self, on: &'static str, scripts: &[Vec<Action>]) {
        let of = |topic: &str| {
            let listeners = self.topics.iter().filter(move |(name, _)| *name == topic).flat_map(|(_, all)| all.clone());
            listeners.collect::<Vec<_>>()
        };
        for Listener { number, once, script } in [of(on), of(ANY)].concat() {
            if once {
                self.off(number);
            }
            self.log.push(Entry::Ran { listener: number, on: on.to_owned() });
            let script = usize::from(script).checked_rem(scripts.len()).map(|index| scripts[index].clone());
            for action in script.unwrap_or_default() {
                perform(self, action);
            }
        }
    }

    fn remove(&mut self, which: impl Fn(&str, &Listener) -> bool) -> bool {
        let count = |topics: &[(&str, Vec<Listener>)]| topics.iter().map(|(_, all)| all.len()).sum::<usize>();
        let before = count(&self.topics);
        self.topics.iter_mut().for_each(|(name, all)| all.retain(|listener| !which(name, listener)));
        self.topics.retain(|(_, all)| !all.is_empty());
        count(&self.topics) != before
    }
}

impl Side for Model {
    fn len(&self) -> usize {
        self.listeners
    }

    fn log(&mut self, entry: Entry) {
        self.log.push(entry);
    }

    fn add(&mut self, topic: Topic, first: bool, once: bool, script: u8) {
        let (name, first, once) = match topic {
            Topic::Named(at) => (name(at), first, once),
            Topic::Any => (ANY, false, false),
        };
        let at = self.topics.iter().position(|(topic, _)| *topic == name).unwrap_or_else(|| {
            self.topics.push((name, Vec::new()));
            self.topics.len() - 1
        });
        let listener = Listener { number: self.listeners, once, script };
        let all = &mut self.topics[at].1;
        all.insert(if first { 0 } else { all.len() }, listener);
        self.listeners += 1;
    }

    fn off(&mut self, listener: usize) -> bool {
        self.remove(|_, other| other.number == listener)
    }

    fn remove_listener(&mut self, name: &'static str, listener: usize) -> bool {
        self.remove(|topic, other| topic == name && other.number == listener)
    }

    fn remove_all(&mut self, name: &'static str) {
        self.remove(|topic, _| topic == name);
    }

    fn clear(&mut self) {
        self.topics.clear();
    }

    fn count(&self, name: &'static str) -> usize {
        self.topics.iter().filter(|(topic, _)| *topic == name).map(|(_, all)| all.len()).sum()
    }

    fn names(&self) -> Vec<String> {
        self.topics.iter().filter(|(name, _)| *name != ANY).map(|(name, _)| (*name).to_owned()).collect()
    }
}

thread_local! {
    static PAIR: RefCell<Option<(IpcMain, IpcRenderer)>> = const { RefCell::new(None) };
}

pub fn emitter(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    PAIR.with_borrow_mut(|pair| {
        let (main, renderer) = pair.get_or_insert_with(pair::renderer);
        run(case, main, renderer);
    });
}

fn run(case: Case, main: &IpcMain, renderer: &IpcRenderer) {
    let Case { scripts, operations } = case;
    let world = Arc::new(World { scripts, state: Mutex::default() });
    let mut model = Model::default();
    for operation in operations.into_iter().take(100) {
        match operation {
            Operation::Emit { name: at } => {
                model.emit(name(at), &world.scripts);
                renderer.send(name(at), &args![1]).unwrap();
                assert_eq!(main.poll().unwrap(), 1);
            }
            Operation::Do(action) => {
                perform(&mut model, action);
                perform(&mut Real { emitter: main, world: Arc::clone(&world) }, action);
            }
        }
        for at in 0..NAMES.len() as u8 {
            assert_eq!(main.listener_count(name(at)), model.count(name(at)));
        }
        assert_eq!(main.event_names(), model.names());
        assert_eq!(world.state.lock().unwrap().1, model.log);
    }
    main.clear_listeners();
    assert_eq!(Arc::strong_count(&world), 1, "a listener that was removed still lives");
}
