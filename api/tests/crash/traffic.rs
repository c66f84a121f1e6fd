//! What every endpoint does, whichever side it is: to each peer two threads send and call without end, and listeners
//! count, keep, answer, echo and call back.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use memit::{Builder, CallError, Channel, Disconnect, Emitter, Retained, SendError, Sender, Trust, WaitStrategy};

use crate::NEVER;
use crate::ledger::Ledger;
use crate::letters::{ARENA, EXTENT, Letter, RING};

/// Messages and calls of one thread, in one order.
const TELL: Channel<[u8]> = Channel::new("tell");
const ASK: Channel<[u8], [u8]> = Channel::new("ask");
/// A call that is given up at once.
const ASK_IN_VAIN: Channel<[u8], [u8]> = Channel::new("ask in vain");
/// Has the dispatching thread send messages, which wait in its backlog when the ring is full.
const ECHO: Channel<[u8]> = Channel::new("echo");
const ECHOED: Channel<[u8]> = Channel::new("echoed");
/// Has the dispatching thread call.
const CALL_BACK: Channel<[u8]> = Channel::new("call back");
/// Answered in the reply's slot, however full all else is.
pub const PING: Channel<u64, u64> = Channel::new("ping");

/// Threads that send to each peer.
const TALKERS: usize = 2;

/// How long a message may be that a listener keeps: its sender needs the room.
const LONGEST_KEPT: usize = EXTENT / 4;

/// The settings of every endpoint: little of everything, and no timer that could end a wait. Who does not sleep at once
/// trusts its peers fully, so that either is met by both sides of a death.
pub fn settings<Side>(builder: Builder<Side>, dir: &str, wait: WaitStrategy) -> Builder<Side> {
    builder
        .runtime_dir(dir)
        .wait(wait)
        .trust(if matches!(wait, WaitStrategy::Park) { Trust::None } else { full_trust() })
        .ring_capacity(RING)
        .extent_size(EXTENT)
        .arena_limit(ARENA)
        .arena_idle(Duration::from_millis(10))
        .handshake_deadline(NEVER)
}

#[allow(unsafe_code)]
fn full_trust() -> Trust {
    // SAFETY: all ends are these tests, which keep the protocol until they die.
    unsafe { Trust::full() }
}

/// The traffic of one endpoint.
pub struct Traffic {
    ledger: Arc<Ledger>,
    /// By process id.
    peers: Mutex<HashMap<i32, Dealings>>,
    changed: Condvar,
    /// The message that came last, of those that are short enough.
    kept: Mutex<Option<Retained<[u8]>>>,
}

/// What there was with one process.
#[derive(Clone, Debug, Default)]
pub struct Dealings {
    /// Threads that send to it.
    pub talkers: usize,
    pub came: u64,
    pub went: u64,
    pub reasons: Vec<Disconnect>,
}

impl Dealings {
    /// Nothing is left of it.
    fn is_over(&self) -> bool {
        self.talkers == 0 && self.came == self.went
    }
}

/// A thread that sends to a process, until it ends.
struct Talking(Arc<Traffic>, i32);

impl Drop for Talking {
    fn drop(&mut self) {
        self.0.with(self.1, |dealings| dealings.talkers -= 1);
    }
}

impl Traffic {
    /// Listens on an endpoint. From then on each peer that comes is talked to.
    pub fn on(emitter: &Emitter, ledger: &Arc<Ledger>) -> Arc<Self> {
        let traffic = Arc::new(Self {
            ledger: Arc::clone(ledger),
            peers: Mutex::default(),
            changed: Condvar::new(),
            kept: Mutex::default(),
        });
        traffic.note_peers(emitter);
        traffic.listen(emitter);
        traffic
    }

    fn note_peers(self: &Arc<Self>, emitter: &Emitter) {
        let traffic = Arc::clone(self);
        emitter.on_connect(move |sender: &Sender| {
            let pid = sender.peer().pid;
            traffic.with(pid, |dealings| {
                dealings.came += 1;
                dealings.talkers += TALKERS;
            });
            for _ in 0..TALKERS {
                let (talking, sender) = (Talking(Arc::clone(&traffic), pid), sender.clone());
                thread::spawn(move || {
                    // Moved, so that nothing of the connection is left when the thread counts as ended.
                    talk(&talking.0.ledger, sender);
                    drop(talking);
                });
            }
        });
        let traffic = Arc::clone(self);
        emitter.on_disconnect(move |peer, reason| {
            // It may be from this peer, and then memory of a process that is gone.
            traffic.keep(None);
            traffic.with(peer.pid, |dealings| {
                dealings.went += 1;
                dealings.reasons.push(reason.clone());
            });
        });
        let ledger = Arc::clone(&self.ledger);
        emitter.on_error(move |error| ledger.fault(&format!("an error was dispatched: {error}")));
    }

    fn listen(self: &Arc<Self>, emitter: &Emitter) {
        emitter.on(PING, |event, number| event.set_return_value(&number.to_native()));
        let traffic = Arc::clone(self);
        emitter.on(TELL, move |event, bytes| {
            count(&traffic.ledger, bytes);
            if bytes.len() <= LONGEST_KEPT {
                traffic.keep(Some(event.retain()));
            }
        });
        let ledger = Arc::clone(&self.ledger);
        emitter.on(ASK, move |event, bytes| {
            count(&ledger, bytes);
            answer(&ledger, bytes, |answer| event.set_return_value(answer));
        });
        let ledger = Arc::clone(&self.ledger);
        emitter.on(ASK_IN_VAIN, move |event, bytes| {
            answer(&ledger, bytes, |answer| event.set_return_value(answer));
        });
        let ledger = Arc::clone(&self.ledger);
        // The stream of echoes to each connection, with its next number.
        let mut echoes = HashMap::new();
        emitter.on(ECHO, move |event, bytes| {
            read(&ledger, bytes);
            let peer = event.peer();
            let (stream, seq) =
                echoes.entry(peer.id).or_insert_with(|| (ledger.open(std::process::id().cast_signed(), peer.pid), 0));
            let mut echo = Vec::new();
            Letter { stream: *stream, seq: *seq }.write_mixed(&mut echo);
            ledger.begin(*stream, *seq);
            match event.reply(ECHOED, &echo) {
                // It may be in the backlog still, and go with it.
                Ok(()) => *seq += 1,
                // The peer's talkers are faster than its dispatching thread.
                Err(SendError::Full { .. } | SendError::Disconnected(_)) => {}
                Err(error) => ledger.fault(&format!("an echo was not sent: {error}")),
            }
        });
        let ledger = Arc::clone(&self.ledger);
        emitter.on(ECHOED, move |_, bytes| count(&ledger, bytes));
        let ledger = Arc::clone(&self.ledger);
        emitter.on(CALL_BACK, move |event, bytes| {
            if let Some(letter) = read(&ledger, bytes) {
                // A small answer: a large one would need room that only this thread makes, by taking what is in the ring.
                // Two that call back at once cross, and one of them is told.
                match event.sender().send_sync(PING, &letter.seq) {
                    Ok(reply) if *reply == letter.seq => {}
                    Ok(_) => ledger.fault("a call back got another's answer"),
                    Err(CallError::Disconnected(_) | CallError::WouldDeadlock) => {}
                    Err(error) => ledger.fault(&format!("a call back failed: {error}")),
                }
            }
        });
    }

    /// Keeps a message in place of the one before, which must still be whole.
    fn keep(&self, message: Option<Retained<[u8]>>) {
        let before = mem::replace(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner), message);
        if let Some(before) = before {
            read(&self.ledger, &before);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Dealings>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, pid: i32, note: impl FnOnce(&mut Dealings)) {
        note(self.lock().entry(pid).or_default());
        self.changed.notify_all();
    }

    /// Waits until nothing is left of the process `pid`: no connection, and no thread that waits on one. If that does
    /// not come, says what is left.
    pub fn is_over_with(&self, pid: i32, within: Duration) -> Result<Dealings, Dealings> {
        self.wait_until(within, |peers| {
            let dealings = peers.entry(pid).or_default();
            dealings.is_over().then(|| dealings.clone())
        })
        .map_err(|peers| peers[&pid].clone())
    }

    /// Waits until no thread sends to anybody any more; whether that came.
    pub fn is_silent(&self, within: Duration) -> bool {
        let silent = |peers: &mut HashMap<i32, Dealings>| peers.values().all(|dealings| dealings.talkers == 0);
        self.wait_until(within, |peers| silent(peers).then_some(())).is_ok()
    }

    fn wait_until<T>(
        &self,
        within: Duration,
        done: impl Fn(&mut HashMap<i32, Dealings>) -> Option<T>,
    ) -> Result<T, MutexGuard<'_, HashMap<i32, Dealings>>> {
        let deadline = Instant::now() + within;
        let mut peers = self.lock();
        loop {
            if let Some(outcome) = done(&mut peers) {
                return Ok(outcome);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(peers);
            }
            peers = self.changed.wait_timeout(peers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Reads a letter, which must be whole.
fn read(ledger: &Ledger, bytes: &[u8]) -> Option<Letter> {
    let letter = Letter::read(bytes);
    if letter.is_none() {
        ledger.fault(&format!("a message of {} bytes came that is not whole", bytes.len()));
    }
    letter
}

fn count(ledger: &Ledger, bytes: &[u8]) {
    if let Some(Letter { stream, seq }) = read(ledger, bytes) {
        ledger.receive(stream, seq);
    }
}

/// Answers a letter with one of the same name, in another size.
fn answer<E: std::fmt::Display>(ledger: &Ledger, bytes: &[u8], set: impl FnOnce(&[u8]) -> Result<(), E>) {
    let Some(letter) = read(ledger, bytes) else { return };
    let mut answer = Vec::new();
    letter.write_mixed(&mut answer);
    if let Err(error) = set(&answer) {
        ledger.fault(&format!("an answer was not given: {error}"));
    }
}

/// Sends and calls until the connection ends.
fn talk(ledger: &Ledger, sender: Sender) {
    let stream = ledger.open(std::process::id().cast_signed(), sender.peer().pid);
    let mut letter = Vec::new();
    for seq in 0.. {
        let this = Letter { stream, seq };
        this.write_mixed(&mut letter);
        ledger.begin(stream, seq);
        let outcome = if seq % 8 == 3 { ask(ledger, &sender, this, &letter) } else { tell(&sender, this, &letter) };
        if let Err(end) = outcome.and_then(|()| {
            if !ENDING.load(Ordering::SeqCst) {
                ledger.finish(stream, seq);
            }
            on_the_side(&sender, this, &mut letter)
        }) {
            return if let End::Fault(text) = end {
                ledger.fault(&text)
            };
        }
    }
}

/// Why a thread stops.
enum End {
    Disconnected,
    Fault(String),
}

impl From<SendError> for End {
    fn from(error: SendError) -> Self {
        if matches!(error, SendError::Disconnected(_)) {
            Self::Disconnected
        } else {
            Self::Fault(format!("a message was not sent: {error}"))
        }
    }
}

impl From<CallError> for End {
    fn from(error: CallError) -> Self {
        if matches!(error, CallError::Disconnected(_)) {
            Self::Disconnected
        } else {
            Self::Fault(format!("a call failed: {error}"))
        }
    }
}

/// Every other one is written where the peer reads it.
fn tell(sender: &Sender, this: Letter, letter: &[u8]) -> Result<(), End> {
    if this.seq.is_multiple_of(2) {
        return Ok(sender.send(TELL, letter)?);
    }
    let mut loan = sender.loan(TELL, letter.len())?;
    loan.copy_from_slice(letter);
    Ok(loan.commit()?)
}

fn ask(ledger: &Ledger, sender: &Sender, this: Letter, letter: &[u8]) -> Result<(), End> {
    let reply = sender.send_sync(ASK, letter)?;
    CALLS.fetch_add(1, Ordering::Relaxed);
    if read(ledger, &reply) == Some(this) { Ok(()) } else { Err(End::Fault("a call got another's answer".into())) }
}

/// This process is about to shut its endpoint down, and what its threads send meanwhile may be lost.
pub static ENDING: AtomicBool = AtomicBool::new(false);

/// Calls of this process that were answered.
pub static CALLS: AtomicU64 = AtomicU64::new(0);

/// Now and then: a call that is given up, echoes, a call back.
fn on_the_side(sender: &Sender, this: Letter, letter: &mut Vec<u8>) -> Result<(), End> {
    /// More of them than the ring holds.
    const ECHOES: usize = 40;
    match this.seq % 64 {
        5 | 37 => match sender.send_sync_timeout(ASK_IN_VAIN, &**letter, Duration::ZERO) {
            Ok(_) | Err(CallError::Timeout) => {}
            Err(error) => return Err(error.into()),
        },
        20 => {
            this.write(letter, 100);
            for _ in 0..ECHOES {
                sender.send(ECHO, &**letter)?;
            }
        }
        50 => sender.send(CALL_BACK, &**letter)?,
        _ => {}
    }
    Ok(())
}
