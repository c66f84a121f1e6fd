//! The emitter: listeners on named channels, by Node's rules.
//!
//! | file | idea |
//! |---|---|
//! | `table` | the listeners in their order, owned by whoever dispatches |
//! | `registry` | changes to the table by any thread, at any time |
//! | `kinds` | what peers announced, resolved to listeners |
//! | `dispatch` | what arrives, taken to the listeners |

pub(crate) mod dispatch;
pub(crate) mod kinds;
pub(crate) mod registry;
pub(crate) mod table;

use std::{fmt, mem};

use memit_engine::{Disconnect, Port};

pub use self::table::ListenerId;
use self::{
    registry::{Registry, Removal, Removed},
    table::{Listener, Place, Signature, Table, Topic},
};
use crate::{
    Args, DispatchError, Event, Failure, IntoChannel, InvalidPayload, Outcome, Payload, Peer, Sender, Value,
    event::Delivery, schema::text,
};

/// How a listener is called, by what it listens to.
pub(crate) enum Callback {
    Message(OnMessage),
    Error(OnError),
    Connect(OnConnect),
    Disconnect(OnDisconnect),
}

type OnMessage = Box<dyn FnMut(&Delivery<'_>) -> Result<(), Box<NotHeard>> + Send>;
type OnError = Box<dyn FnMut(&DispatchError) + Send>;
type OnConnect = Box<dyn FnMut(&Sender) -> Option<Failure> + Send>;
type OnDisconnect = Box<dyn FnMut(&Peer, &Disconnect) -> Option<Failure> + Send>;

/// Why a listener did not do what it is for. In a box, so that to have done it costs nothing to tell.
pub(crate) enum NotHeard {
    Failed(Failure),
    Invalid(InvalidPayload),
}

/// The listeners of an endpoint: what [`IpcMain`](crate::IpcMain) and [`IpcRenderer`](crate::IpcRenderer) deref to, and
/// what [`Event::emitter`](crate::Event::emitter) gives.
///
/// The rules are those of Node's `EventEmitter`:
/// - Listeners run in the order in which they were registered, prepended ones before.
/// - Each message goes to the listeners that were there when it came up: one that a listener adds runs from the next
///   message on, one that it removes still runs for this message.
/// - A `once` listener is removed before it runs.
///
/// A listener hears what was sent with its channel's name *and* types. If a name has listeners and none with the types
/// of a message, that is a [`DispatchError::SchemaMismatch`]. A message whose name nobody listens to is dropped; a call
/// then ends with [`CallError::NoListener`](crate::CallError::NoListener).
///
/// A listener returns nothing, or a `Result<(), E>` whose error goes to the [error listeners](Self::on_error) and, if
/// the peer waits for an answer and got none, to the peer. A panic in a listener ends the caller's wait too, keeps the
/// remaining listeners from this message, and goes on in the thread that dispatches, which may dispatch again.
///
/// Listeners are registered and removed from any thread, also while another dispatches. A removed listener is dropped
/// at once, or between two messages if somebody dispatches, and never while a lock is held, so its drop may use the
/// endpoint.
///
/// In a child that this process made by `fork` the emitter has no listeners and takes none: the endpoint stays the
/// parent's.
pub struct Emitter {
    registry: Registry<Callback>,
    port: Port,
}

impl Emitter {
    pub(crate) fn new(port: Port) -> Self {
        Self { registry: Registry::default(), port }
    }

    /// Calls `listener` for each message on `channel`, after the listeners that are there.
    pub fn on<C, F, O>(&self, channel: C, listener: F) -> ListenerId
    where
        C: IntoChannel,
        O: Outcome,
        F: FnMut(&mut Event<'_, C::Message, C::Return, C::Error>, &<C::Message as Payload>::View) -> O + Send + 'static,
    {
        self.add(&channel, Place::Last, listener)
    }

    /// Calls `listener` for each message on `channel`, before the listeners that are there.
    pub fn prepend_listener<C, F, O>(&self, channel: C, listener: F) -> ListenerId
    where
        C: IntoChannel,
        O: Outcome,
        F: FnMut(&mut Event<'_, C::Message, C::Return, C::Error>, &<C::Message as Payload>::View) -> O + Send + 'static,
    {
        self.add(&channel, Place::First, listener)
    }

    /// Calls `listener` for the next message on `channel` only, after the listeners that are there.
    pub fn once<C, F, O>(&self, channel: C, listener: F) -> ListenerId
    where
        C: IntoChannel,
        O: Outcome,
        F: FnOnce(&mut Event<'_, C::Message, C::Return, C::Error>, &<C::Message as Payload>::View) -> O
            + Send
            + 'static,
    {
        self.add_once(&channel, Place::Last, listener)
    }

    /// Calls `listener` for the next message on `channel` only, before the listeners that are there.
    pub fn prepend_once_listener<C, F, O>(&self, channel: C, listener: F) -> ListenerId
    where
        C: IntoChannel,
        O: Outcome,
        F: FnOnce(&mut Event<'_, C::Message, C::Return, C::Error>, &<C::Message as Payload>::View) -> O
            + Send
            + 'static,
    {
        self.add_once(&channel, Place::First, listener)
    }

    /// Calls `listener` for each message on a dynamic channel (a `&str` channel, whose messages are [`Args`]), whatever
    /// its name. It runs after the listeners on that name. A call that it hears is not
    /// [`NoListener`](crate::CallError::NoListener).
    pub fn on_any<F, O>(&self, mut listener: F) -> ListenerId
    where
        O: Outcome,
        F: FnMut(&mut Event<'_, Args, Value, Failure>, &str, &<Args as Payload>::View) -> O + Send + 'static,
    {
        let call = hear::<&str, O>(move |event, args| {
            let name = event.channel();
            listener(event, name, args)
        });
        self.enlist(ListenerId::next(), Topic::Any, Place::Last, Signature::of::<&str>(), call)
    }

    /// Calls `listener` for what goes wrong while dispatching. Without such a listener it goes to the log, through
    /// `tracing`.
    pub fn on_error<F>(&self, listener: F) -> ListenerId
    where
        F: FnMut(&DispatchError) + Send + 'static,
    {
        self.add_typed(Topic::Error, Callback::Error(Box::new(listener)))
    }

    /// Calls `listener` with each peer that connects. No peer can imitate that with a message.
    pub fn on_connect<F, O>(&self, mut listener: F) -> ListenerId
    where
        O: Outcome,
        F: FnMut(&Sender) -> O + Send + 'static,
    {
        let call = move |sender: &Sender| listener(sender).into_failure();
        self.add_typed(Topic::Connect, Callback::Connect(Box::new(call)))
    }

    /// Calls `listener` with each peer whose connection has ended, and the reason. What the peer sent before came
    /// before. No peer can imitate that with a message.
    pub fn on_disconnect<F, O>(&self, mut listener: F) -> ListenerId
    where
        O: Outcome,
        F: FnMut(&Peer, &Disconnect) -> O + Send + 'static,
    {
        let call = move |peer: &Peer, reason: &Disconnect| listener(peer, reason).into_failure();
        self.add_typed(Topic::Disconnect, Callback::Disconnect(Box::new(call)))
    }

    /// Removes a listener of any sort; `false` if it is gone already.
    pub fn off(&self, id: ListenerId) -> bool {
        self.removed(|registry| registry.remove(None, id))
    }

    /// Removes the listener `id` from the channel of that name; `false` if it is not there.
    pub fn remove_listener<C: IntoChannel>(&self, channel: C, id: ListenerId) -> bool {
        self.removed(|registry| registry.remove(Some(&Topic::channel(channel.name())), id))
    }

    /// Removes every listener from the channel of that name, whatever its types.
    pub fn remove_all_listeners<C: IntoChannel>(&self, channel: C) {
        let topic = Topic::channel(channel.name());
        self.removed(|registry| registry.remove_all(|other| *other == topic));
    }

    /// Removes every listener from every channel, those of [`on_any`](Self::on_any) too. The listeners for errors and
    /// connections stay.
    pub fn clear_listeners(&self) {
        self.removed(|registry| registry.remove_all(Topic::takes_messages));
    }

    /// How many listeners the channel of that name has, whatever their types.
    pub fn listener_count<C: IntoChannel>(&self, channel: C) -> usize {
        self.ours().map_or(0, |registry| registry.count(&Topic::channel(channel.name())))
    }

    /// The names of the channels that have listeners, in the order in which they got their first one.
    pub fn event_names(&self) -> Vec<String> {
        self.ours().map_or_else(Vec::new, |registry| registry.channel_names().iter().map(ToString::to_string).collect())
    }

    fn add<C, F, O>(&self, channel: &C, place: Place, listener: F) -> ListenerId
    where
        C: IntoChannel,
        O: Outcome,
        F: FnMut(&mut Event<'_, C::Message, C::Return, C::Error>, &<C::Message as Payload>::View) -> O + Send + 'static,
    {
        let call = hear::<C, O>(listener);
        self.enlist(ListenerId::next(), Topic::channel(channel.name()), place, Signature::of::<C>(), call)
    }

    fn add_once<C, F, O>(&self, channel: &C, place: Place, listener: F) -> ListenerId
    where
        C: IntoChannel,
        O: Outcome,
        F: FnOnce(&mut Event<'_, C::Message, C::Return, C::Error>, &<C::Message as Payload>::View) -> O
            + Send
            + 'static,
    {
        let id = ListenerId::next();
        let mut listener = Some(listener);
        let call = hear::<C, _>(move |event, message| {
            // Before it runs, and not before its message has proved to be one.
            event.emitter().forget(id);
            listener.take().and_then(|listener| listener(event, message).into_failure()).map_or(Ok(()), Err)
        });
        self.enlist(id, Topic::channel(channel.name()), place, Signature::of::<C>(), call)
    }

    fn add_typed(&self, topic: Topic, call: Callback) -> ListenerId {
        self.enlist(ListenerId::next(), topic, Place::Last, Signature::default(), call)
    }

    fn enlist(&self, id: ListenerId, topic: Topic, place: Place, signature: Signature, call: Callback) -> ListenerId {
        if let Some(registry) = self.ours() {
            registry.add(topic, place, Listener { id, signature, call });
        }
        id
    }

    /// Removes, and wakes a dispatcher that sleeps elsewhere, so that it drops what was removed.
    fn removed(&self, remove: impl FnOnce(&Registry<Callback>) -> Removal) -> bool {
        let removal = self.ours().map_or(Removal::Nothing, remove);
        if removal == Removal::Pending && !self.port.is_dispatching_here() {
            self.port.notify();
        }
        removal != Removal::Nothing
    }

    /// Removes a `once` listener that is about to run.
    #[cold]
    fn forget(&self, id: ListenerId) {
        if let Some(registry) = self.ours() {
            registry.remove(None, id);
        }
    }

    #[inline]
    pub(crate) fn refresh(&self, table: &mut Table<Callback>) -> Option<Removed<Callback>> {
        if self.registry.is_fresh(table) { None } else { Some(self.ours()?.refresh(table)) }
    }

    /// The registry, but in a forked child: there a thread that is none of the child's may hold the lock for ever, and
    /// may have left anything half done.
    pub(crate) fn ours(&self) -> Option<&Registry<Callback>> {
        (!self.port.is_forked()).then_some(&self.registry)
    }

    /// Keeps everything here from being dropped.
    pub(crate) fn leak(&mut self) {
        self.registry.leak();
        mem::forget(self.port.clone());
    }

    pub(crate) fn port(&self) -> &Port {
        &self.port
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter").field("event_names", &self.event_names()).finish_non_exhaustive()
    }
}

impl Signature {
    /// The schemas of a channel's types.
    pub(crate) fn of<C: IntoChannel>() -> Self {
        Self {
            message: text::<C::Message>().into_bytes().into(),
            reply: text::<C::Return>().into_bytes().into(),
            error: text::<C::Error>().into_bytes().into(),
        }
    }
}

/// A listener on messages of `C`, without its types.
#[allow(unsafe_code)]
fn hear<C, O>(
    mut listener: impl FnMut(&mut Event<'_, C::Message, C::Return, C::Error>, &<C::Message as Payload>::View) -> O
    + Send
    + 'static,
) -> Callback
where
    C: IntoChannel,
    O: Outcome,
{
    Callback::Message(Box::new(move |delivery| {
        let message = delivery.view::<C::Message>().map_err(|invalid| Box::new(NotHeard::Invalid(invalid)))?;
        // SAFETY: the delivery's view was just made.
        let mut event = unsafe { Event::new(delivery) };
        match listener(&mut event, message).into_failure() {
            None => Ok(()),
            Some(failure) => Err(Box::new(NotHeard::Failed(failure))),
        }
    }))
}
