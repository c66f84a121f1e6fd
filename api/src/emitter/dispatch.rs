//! Dispatching: what the engine delivers, taken to the listeners.

use std::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
    collections::HashSet,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use memit_engine::{Announced, Disconnect, Handler, Incoming, Link, ReplyStatus, Violation};

use super::{
    Callback, Emitter, NotHeard,
    kinds::{Kind, KindId, Kinds},
    table::{Seat, Signature, Table, Topic},
};
use crate::{
    DispatchError, Failure, Peer, Sender,
    event::{Call, Delivery},
    outgoing::{MAX_SCHEMAS, Outgoing},
};

/// Bytes of text that go back to a caller whose call failed.
const MAX_REASON: usize = 2048;
/// Bytes that are shown of a description of types, of which two fit one reason.
const MAX_SHOWN: usize = 900;
/// Bytes that are shown of one type's schema, of which three make a description.
const MAX_SHOWN_OF_ONE: usize = 250;

/// What one endpoint knows of its peers. It belongs to whoever dispatches.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    kinds: Kinds,
    /// Sorted by the links' ids.
    connections: Vec<Connection>,
    /// The connection of the last message, which is often that of the next.
    recent: usize,
    /// Why the last connection ended.
    pub(crate) last_end: Option<Disconnect>,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    sender: Sender,
    /// By the channel's number.
    channels: Vec<Option<KindId>>,
    schema_bytes: usize,
    logged: Logged,
}

/// What was logged of one connection's messages, by the channel's name and the sort of error: a peer must not be able
/// to fill the log.
#[derive(Debug, Default)]
pub(crate) struct Logged(RefCell<HashSet<(Arc<str>, Sort)>>);

/// What a peer can bring about as often as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sort {
    Mismatch,
    Limit,
}

impl Peers {
    /// What the peer announced under that number, and its connection.
    #[inline]
    fn find(&mut self, link: u64, channel: u16) -> Option<(&mut Kind, &Connection)> {
        let at = self.position(link)?;
        let connection = self.connections.get(at)?;
        let id = (*connection.channels.get(usize::from(channel))?)?;
        Some((self.kinds.get(id)?, connection))
    }

    #[inline]
    fn position(&mut self, link: u64) -> Option<usize> {
        if self.connections.get(self.recent).is_none_or(|connection| connection.id != link) {
            self.recent = self.connections.binary_search_by_key(&link, |connection| connection.id).ok()?;
        }
        Some(self.recent)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Drops what is known of every peer.
    pub(crate) fn clear(&mut self) {
        self.connections.clear();
        self.kinds = Kinds::default();
    }
}

/// Takes what one turn of the engine delivers to the listeners in `table`.
pub(crate) struct Dispatcher<'d> {
    pub(crate) emitter: &'d Emitter,
    pub(crate) outgoing: &'d Arc<Outgoing>,
    pub(crate) table: &'d mut Table<Callback>,
    pub(crate) peers: &'d mut Peers,
    /// How many messages, arrivals and departures came.
    pub(crate) handled: usize,
}

impl Handler for Dispatcher<'_> {
    fn connected(&mut self, link: &Arc<Link>) {
        self.handled += 1;
        let sender = Sender::new(Arc::clone(link), Arc::clone(self.outgoing));
        let connection = Connection {
            id: link.id(),
            sender: sender.clone(),
            channels: Vec::new(),
            schema_bytes: 0,
            logged: Logged::default(),
        };
        if let Err(at) = self.peers.connections.binary_search_by_key(&link.id(), |connection| connection.id) {
            self.peers.connections.insert(at, connection);
        }
        let _removed = self.emitter.refresh(self.table);
        for seat in seats(self.table, &Topic::Connect) {
            if let Some(Callback::Connect(call)) = self.table.listener(seat).map(|listener| &mut listener.call)
                && let Some(failure) = call(&sender)
            {
                report(self.table, &DispatchError::ConnectionListener { peer: sender.peer(), failure });
            }
        }
    }

    fn announced(&mut self, link: &Arc<Link>, channel: Announced<'_>) -> Result<(), Violation> {
        let Some(at) = self.peers.position(link.id()) else { return Ok(()) };
        let Peers { connections, kinds, .. } = &mut *self.peers;
        let connection = &mut connections[at];
        let signature =
            Signature { message: channel.message.into(), reply: channel.reply.into(), error: channel.error.into() };
        connection.schema_bytes += signature.len();
        if connection.schema_bytes > MAX_SCHEMAS {
            return Err(Violation(format!("the schemas that it announced are longer than {MAX_SCHEMAS} bytes in all")));
        }
        let number = usize::from(channel.channel);
        if connection.channels.len() <= number {
            connection.channels.resize(number + 1, None);
        }
        let kind = kinds.enter(channel.name, &signature);
        if let Some(replaced) = connection.channels[number].replace(kind) {
            kinds.leave(replaced);
        }
        Ok(())
    }

    fn message(&mut self, message: Incoming<'_>) {
        self.handled += 1;
        // Dropped behind the message, since it runs user code, which may panic, and the message came first: if a listener
        // panics, it is that panic which comes out.
        let _removed = self.emitter.refresh(self.table);
        let Some((kind, connection)) = self.peers.find(message.link.id(), message.channel) else { return };
        kind.resolve(self.table);
        let delivery = |call| Delivery {
            sender: &connection.sender,
            emitter: self.emitter,
            channel: kind.name(),
            message: &message,
            kept: OnceCell::new(),
            call,
            logged: &connection.logged,
            valid_as: Cell::new(None),
        };
        match message.call {
            None => emit(self.table, kind, &delivery(None)),
            Some(token) => {
                let call = Call::new(token);
                emit_call(self.table, kind, &delivery(Some(&call)), &call);
            }
        }
    }

    fn disconnected(&mut self, link: &Arc<Link>, reason: &Disconnect) {
        self.handled += 1;
        self.peers.last_end = Some(reason.clone());
        if let Some(at) = self.peers.position(link.id()) {
            let gone = self.peers.connections.remove(at);
            for kind in gone.channels.into_iter().flatten() {
                self.peers.kinds.leave(kind);
            }
        }
        let _removed = self.emitter.refresh(self.table);
        let peer = Peer::of(link);
        for seat in seats(self.table, &Topic::Disconnect) {
            if let Some(Callback::Disconnect(call)) = self.table.listener(seat).map(|listener| &mut listener.call)
                && let Some(failure) = call(&peer, reason)
            {
                report(self.table, &DispatchError::ConnectionListener { peer, failure });
            }
        }
    }
}

/// Runs the listeners of `kind`. A listener's panic ends the emit and comes out.
#[inline]
fn emit(table: &mut Table<Callback>, kind: &Kind, delivery: &Delivery<'_>) {
    let seats = kind.seats(delivery.call.is_some());
    if seats.is_empty() {
        unheard(table, kind, delivery);
        return;
    }
    for &seat in seats {
        if !deliver(table, seat, delivery) {
            break;
        }
    }
}

/// Runs the listeners of `kind`, and answers the caller if none of them has.
fn emit_call(table: &mut Table<Callback>, kind: &Kind, delivery: &Delivery<'_>, call: &Call) {
    // Sound across a panic: the table does not change during an emit, and what a listener leaves half done is its own.
    let ran = panic::catch_unwind(AssertUnwindSafe(|| emit(table, kind, delivery)));
    if !call.answered.get() {
        match &ran {
            Err(panic) => answer(delivery, call, ReplyStatus::ListenerPanicked, panic_text(panic.as_ref())),
            Ok(()) => match call.failure.get() {
                Some(failure) => answer(delivery, call, ReplyStatus::ReplyFailed, failure),
                None if *kind.signature().reply == *b"()" => answer(delivery, call, ReplyStatus::Value, ""),
                None => answer(delivery, call, ReplyStatus::NoReply, ""),
            },
        }
    }
    if let Err(panic) = ran {
        panic::resume_unwind(panic);
    }
}

/// Runs one listener. `false` if the message is none, which ends its sender's connection, or beyond a limit.
#[inline]
fn deliver(table: &mut Table<Callback>, seat: Seat, delivery: &Delivery<'_>) -> bool {
    let Some(listener) = table.listener(seat) else { return true };
    let Callback::Message(call) = &mut listener.call else { return true };
    match call(delivery) {
        Ok(()) => true,
        Err(why) => not_heard(table, delivery, *why),
    }
}

/// Tells whoever should know. Whether the message is one, so that the other listeners hear it, too.
#[cold]
fn not_heard(table: &mut Table<Callback>, delivery: &Delivery<'_>, why: NotHeard) -> bool {
    match why {
        NotHeard::Failed(failure) => {
            failed(table, delivery, failure);
            return true;
        }
        NotHeard::Invalid(invalid) if invalid.is_limit() => decline(table, delivery, invalid.to_string()),
        NotHeard::Invalid(invalid) => refuse(table, delivery, invalid.to_string()),
    }
    false
}

/// Nobody hears the message: a caller is told why, and types that do not fit are an error.
#[cold]
fn unheard(table: &mut Table<Callback>, kind: &Kind, delivery: &Delivery<'_>) {
    let others = kind.others();
    if others.is_empty() {
        if let Some(call) = delivery.call {
            answer(delivery, call, ReplyStatus::NoListener, "");
        }
        return;
    }
    let is_told = is_worth_telling(table, delivery, Sort::Mismatch);
    if !is_told && delivery.call.is_none() {
        return;
    }
    let show = |signature: &Signature| show(signature, delivery.call.is_some());
    let found = show(kind.signature());
    let expected = shorten(&others.iter().map(show).collect::<Vec<_>>().join(" or "), MAX_SHOWN);
    if let Some(call) = delivery.call {
        let text = format!("it is called with {found} and listened to with {expected}");
        answer(delivery, call, ReplyStatus::SchemaMismatch, &text);
    }
    if is_told {
        let (channel, peer) = (Arc::clone(delivery.channel), delivery.sender.peer());
        report(table, &DispatchError::SchemaMismatch { channel, peer, found, expected });
    }
}

#[cold]
fn failed(table: &mut Table<Callback>, delivery: &Delivery<'_>, failure: Failure) {
    if let Some(call) = delivery.call {
        call.failure.get_or_init(|| failure.to_string());
    }
    let (channel, peer) = (Arc::clone(delivery.channel), delivery.sender.peer());
    report(table, &DispatchError::Listener { channel, peer, failure });
}

/// The message keeps the rules but is more than this endpoint takes: its sender is told, and stays.
#[cold]
fn decline(table: &mut Table<Callback>, delivery: &Delivery<'_>, reason: String) {
    if let Some(call) = delivery.call {
        answer(delivery, call, ReplyStatus::ReplyFailed, &reason);
    }
    if is_worth_telling(table, delivery, Sort::Limit) {
        let (channel, peer) = (Arc::clone(delivery.channel), delivery.sender.peer());
        report(table, &DispatchError::BeyondLimits { channel, peer, reason });
    }
}

#[cold]
fn refuse(table: &mut Table<Callback>, delivery: &Delivery<'_>, reason: String) {
    if let Some(call) = delivery.call {
        call.answered.set(true);
    }
    let (channel, peer) = (Arc::clone(delivery.channel), delivery.sender.peer());
    delivery
        .sender
        .link()
        .disconnect(Disconnect::violation(format_args!("a message on {channel:?} was invalid: {reason}")));
    report(table, &DispatchError::InvalidMessage { channel, peer, reason });
}

/// Ends a call without a listener's value. If that fails nobody waits any more.
#[cold]
fn answer(delivery: &Delivery<'_>, call: &Call, status: ReplyStatus, text: &str) {
    call.answered.set(true);
    let link = delivery.sender.link();
    let text = cut(text, MAX_REASON.min(link.max_inline()));
    let _ = link.reply(call.token, status, text.as_bytes());
}

/// Takes an error to the error listeners, or to the log if there are none.
fn report(table: &mut Table<Callback>, error: &DispatchError) {
    let seats = seats(table, &Topic::Error);
    if seats.is_empty() {
        tracing::error!("{error}");
    }
    for seat in seats {
        if let Some(Callback::Error(call)) = table.listener(seat).map(|listener| &mut listener.call) {
            call(error);
        }
    }
}

/// Whether an error of that sort is to be reported: always if it is listened to, and else, to the log, the first time.
fn is_worth_telling(table: &Table<Callback>, delivery: &Delivery<'_>, sort: Sort) -> bool {
    table.listeners(&Topic::Error).next().is_some()
        || delivery.logged.0.borrow_mut().insert((Arc::clone(delivery.channel), sort))
}

fn seats(table: &Table<Callback>, topic: &Topic) -> Vec<Seat> {
    table.listeners(topic).map(|(seat, _)| seat).collect()
}

fn show(signature: &Signature, call: bool) -> String {
    if !call {
        return shorten(&String::from_utf8_lossy(&signature.message), MAX_SHOWN);
    }
    let [message, reply, error] = [&signature.message, &signature.reply, &signature.error]
        .map(|schema| shorten(&String::from_utf8_lossy(schema), MAX_SHOWN_OF_ONE));
    format!("({message}) -> {reply} or {error}")
}

/// The text, or its first `most` bytes and how many there are.
fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most { text.to_owned() } else { format!("{}\u{2026} ({} bytes)", cut(text, most), text.len()) }
}

/// The first `most` bytes, or a few less where a character would be torn.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("schema", 9), "schema");
        assert_eq!(cut("µµ", 3), "µ");
        assert_eq!(cut("µ", 1), "");
    }

    #[test]
    fn two_long_descriptions_fit_one_answer() {
        let long = Arc::<[u8]>::from(vec![b'x'; 64 << 10]);
        let signature = Signature { message: Arc::clone(&long), reply: Arc::clone(&long), error: long };
        for call in [false, true] {
            let shown = show(&signature, call);
            assert!(shown.ends_with("\u{2026} (65536 bytes)"), "{shown}");
            let room =
                format!("it is called with {shown} and listened to with {}", shorten(&shown.repeat(9), MAX_SHOWN));
            assert!(room.len() <= MAX_REASON, "{}", room.len());
        }
        assert_eq!(shorten("u32", MAX_SHOWN), "u32");
    }
}
