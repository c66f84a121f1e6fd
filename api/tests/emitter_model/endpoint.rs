//! The program, over a real connection and through the public interface alone.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use memit::{Args, Channel, DispatchError, Emitter, ListenerId, RunError, Sender, WeakIpcMain, args};

use crate::{
    program::{At, Entry, Kind, NAMES, Script, Step},
    support::{Log, PATIENCE, Rig, within_deadline},
};

const NUMBERS: [Channel<u32>; 3] = [Channel::new(NAMES[0]), Channel::new(NAMES[1]), Channel::new(NAMES[2])];
const TEXTS: [Channel<str>; 3] = [Channel::new(NAMES[0]), Channel::new(NAMES[1]), Channel::new(NAMES[2])];

/// What listeners need to do their steps. It keeps no endpoint alive: the endpoint owns the listeners.
#[derive(Clone)]
struct World {
    main: WeakIpcMain,
    sender: Sender,
    ids: Arc<Mutex<Vec<ListenerId>>>,
    next_message: Arc<AtomicU32>,
    /// How many messages, and one arrival, were dispatched.
    handled: Arc<AtomicU32>,
    account: Log<Entry>,
}

/// What `program` brings about.
pub(crate) fn run(program: Vec<Step>) -> Vec<Entry> {
    let account = Log::default();
    let world_account = account.clone();
    within_deadline(move || {
        let rig = Rig::new();
        let renderer = rig.renderer();
        let world = World {
            main: rig.main.downgrade(),
            sender: renderer.sender().clone(),
            ids: Arc::default(),
            next_message: Arc::default(),
            handled: Arc::default(),
            account: world_account,
        };
        let errors = world.account.clone();
        rig.main.on_error(move |error| match error {
            DispatchError::SchemaMismatch { channel, .. } => errors.push(Entry::Mismatch { name: channel.to_string() }),
            other => panic!("{other}"),
        });
        for step in &program {
            world.step(&rig.main, step);
            dispatch_all(&rig, &world);
        }
    });
    account.take()
}

/// Dispatches what was sent, and what listeners send meanwhile. The renderer's arrival is dispatched, too.
fn dispatch_all(rig: &Rig, world: &World) {
    while world.handled.load(Ordering::Relaxed) <= world.next_message.load(Ordering::Relaxed) {
        let handled = rig.main.run_once(PATIENCE).unwrap();
        assert_ne!(handled, 0, "a message was lost");
        world.handled.fetch_add(u32::try_from(handled).unwrap(), Ordering::Relaxed);
    }
}

impl World {
    fn step(&self, emitter: &Emitter, step: &Step) {
        match step {
            Step::Add(at, how, script) => {
                let mut act = self.act(script);
                let number = self.ids.lock().unwrap().len();
                let id = match at.kind {
                    Kind::Number => {
                        let call = move |emitter: &Emitter, message: u32| act(emitter, number, message);
                        add(emitter, NUMBERS[at.name], how.once, how.first, call, |view| view.to_native())
                    }
                    Kind::Text => {
                        let call = move |emitter: &Emitter, message: u32| act(emitter, number, message);
                        add(emitter, TEXTS[at.name], how.once, how.first, call, |view| view.parse().unwrap())
                    }
                    Kind::Dynamic => {
                        let call = move |emitter: &Emitter, message: u32| act(emitter, number, message);
                        add(emitter, at.name(), how.once, how.first, call, only_number)
                    }
                };
                self.ids.lock().unwrap().push(id);
            }
            Step::AddAny(script) => {
                let mut act = self.act(script);
                let number = self.ids.lock().unwrap().len();
                let id = emitter.on_any(move |event, _, args| act(event.emitter(), number, only_number(args)));
                self.ids.lock().unwrap().push(id);
            }
            Step::Emit(at) => self.emit(*at),
            Step::Off(index) => self.take_out(*index, |id| emitter.off(id)),
            Step::Remove(at, index) => self.take_out(*index, |id| emitter.remove_listener(at.name(), id)),
            Step::RemoveAll(at) => emitter.remove_all_listeners(at.name()),
            Step::Clear => emitter.clear_listeners(),
            Step::Count(at) => self.account.push(Entry::Counted(emitter.listener_count(at.name()))),
            Step::Names => self.account.push(Entry::Named(emitter.event_names())),
            Step::Dispatch => match self.main.upgrade().unwrap().poll() {
                Ok(handled) => {
                    self.handled.fetch_add(u32::try_from(handled).unwrap(), Ordering::Relaxed);
                }
                Err(RunError::Busy(_)) => self.account.push(Entry::Busy),
                Err(other) => panic!("{other}"),
            },
        }
    }

    /// What a listener with `script` does with its number and a message.
    fn act(&self, script: &Script) -> impl FnMut(&Emitter, usize, u32) + Send + use<> {
        let (world, script) = (self.clone(), script.clone());
        let mut runs = 0;
        move |emitter, listener, message| {
            world.account.push(Entry::Ran { listener, message });
            for step in script.0.get(runs).into_iter().flatten() {
                world.step(emitter, step);
            }
            runs += 1;
        }
    }

    fn emit(&self, at: At) {
        let message = self.next_message.fetch_add(1, Ordering::Relaxed);
        match at.kind {
            Kind::Number => self.sender.send(NUMBERS[at.name], &message).unwrap(),
            Kind::Text => self.sender.send(TEXTS[at.name], &*message.to_string()).unwrap(),
            Kind::Dynamic => self.sender.send(at.name(), &args![message]).unwrap(),
        }
    }

    fn take_out(&self, index: usize, remove: impl FnOnce(ListenerId) -> bool) {
        let ids = self.ids.lock().unwrap().clone();
        if !ids.is_empty() {
            let listener = index % ids.len();
            let was_there = remove(ids[listener]);
            self.account.push(Entry::Removed { listener, was_there });
        }
    }
}

fn only_number(args: &<Args as memit::Payload>::View) -> u32 {
    args.get(0).unwrap().as_u64().unwrap().try_into().unwrap()
}

/// Adds by the one of the four methods that `once` and `first` name.
fn add<C: memit::IntoChannel>(
    emitter: &Emitter,
    channel: C,
    once: bool,
    first: bool,
    mut call: impl FnMut(&Emitter, u32) + Send + 'static,
    number: impl Fn(&<C::Message as memit::Payload>::View) -> u32 + Send + 'static,
) -> ListenerId {
    match (once, first) {
        (false, false) => emitter.on(channel, move |event, view| call(event.emitter(), number(view))),
        (false, true) => emitter.prepend_listener(channel, move |event, view| call(event.emitter(), number(view))),
        (true, false) => emitter.once(channel, move |event, view| call(event.emitter(), number(view))),
        (true, true) => emitter.prepend_once_listener(channel, move |event, view| call(event.emitter(), number(view))),
    }
}
