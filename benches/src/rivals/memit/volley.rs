//! Rounds that listeners make: each answer's listener sends the next message, and each message's listener answers it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ::memit::{IpcMain, IpcRenderer, Sender, WeakIpcMain};

use super::{BACK, CALL, CLOSE, LOAN, THERE, send};
use crate::rivals::session::{Guest, Host, Segment};
use crate::rivals::{Expected, Outgoing, Place, Side, Work};
use crate::{Result, lock};

/// What ended `run` before its time.
type Ended = Arc<Mutex<Option<Result<()>>>>;

struct Volley {
    renderer: Sender,
    host: Host,
    segment: Segment,
    number: u64,
    began: Instant,
    out: Outgoing,
    expected: Expected,
}

/// The host's life, inside `run`.
pub(super) fn host<const WAY: u8>(main: &IpcMain, renderer: Sender, place: &Place, mut host: Host) -> Result<()> {
    let Some(segment) = host.open()? else { return Ok(()) };
    let (out, expected) = (Outgoing::new(place.len, Side::Host), Expected::new(Side::Guest));
    let began = Instant::now();
    let mut volley = Volley { renderer, host, segment, number: segment.first, began, out, expected };
    volley.begin::<WAY>()?;
    let ended = Ended::default();
    let (end, stop): (Ended, WeakIpcMain) = (Arc::clone(&ended), main.downgrade());
    main.on(BACK, move |_, bytes| {
        let how = match volley.answered::<WAY>(bytes) {
            Ok(true) => return,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        *lock(&end) = Some(how);
        if let Some(main) = stop.upgrade() {
            main.shutdown();
        }
    });
    main.run()?;
    let how = lock(&ended).take();
    how.unwrap_or_else(|| Err("the main was shut down before the last segment".into()))
}

impl Volley {
    fn begin<const WAY: u8>(&mut self) -> Result<()> {
        self.number = self.segment.first;
        self.began = self.host.laps.begin();
        self.send::<WAY>()
    }

    #[inline]
    fn send<const WAY: u8>(&mut self) -> Result<()> {
        self.out.number(self.number, self.segment.whole);
        Ok(send::<WAY>(&self.renderer, THERE, &self.out)?)
    }

    /// Whether there is another round.
    #[inline]
    fn answered<const WAY: u8>(&mut self, bytes: &[u8]) -> Result<bool> {
        self.expected.number(self.number, self.segment.whole);
        check::<WAY>(&self.expected, bytes)?;
        self.host.laps.lap();
        if self.number < self.segment.last() {
            self.number += 1;
            self.send::<WAY>()?;
            return Ok(true);
        }
        let took = self.began.elapsed();
        self.renderer.send(CLOSE, &())?;
        self.host.done(took)?;
        let Some(segment) = self.host.open()? else { return Ok(false) };
        self.segment = segment;
        self.begin::<WAY>()?;
        Ok(true)
    }
}

#[inline]
fn check<const WAY: u8>(expected: &Expected, bytes: &[u8]) -> Result<()> {
    if WAY == LOAN { expected.check_edges(bytes) } else { expected.check(bytes) }
}

/// What the listeners of a guest share: which segment it is.
#[derive(Debug, Default)]
struct Current {
    last: AtomicU64,
    whole: AtomicBool,
}

impl Current {
    /// All listeners run in one thread.
    fn set(&self, segment: Segment) {
        self.last.store(segment.last(), Ordering::Relaxed);
        self.whole.store(segment.whole, Ordering::Relaxed);
    }
}

/// The messages of a guest: the numbers go on from segment to segment.
struct Answers {
    current: Arc<Current>,
    number: u64,
    out: Outgoing,
    expected: Expected,
}

impl Answers {
    fn new(place: &Place, current: &Arc<Current>) -> Self {
        let (out, expected) = (Outgoing::new(place.len, Side::Guest), Expected::new(Side::Host));
        Self { current: Arc::clone(current), number: 1, out, expected }
    }

    /// Takes a message; what is to be answered, if that is, is in `out` then.
    #[inline]
    fn take<const WAY: u8>(&mut self, bytes: &[u8], work: Work) -> bool {
        let whole = self.current.whole.load(Ordering::Relaxed);
        self.expected.number(self.number, whole);
        if let Err(error) = check::<WAY>(&self.expected, bytes) {
            give_up(&error);
        }
        let is_answered = work == Work::Trip || self.number == self.current.last.load(Ordering::Relaxed);
        if is_answered {
            self.out.number(self.number, whole);
        }
        self.number += 1;
        is_answered
    }
}

/// The guest's life, inside `run`.
pub(super) fn guest<const WAY: u8>(renderer: &IpcRenderer, place: &Place, mut guest: Guest) -> Result<()> {
    let current = Arc::new(Current::default());
    let mut answers = Answers::new(place, &current);
    let work = place.work;
    renderer.on(THERE, move |event, bytes| {
        if !answers.take::<WAY>(bytes, work) {
            return Ok(());
        }
        send::<WAY>(event.sender(), BACK, &answers.out)
    });
    let mut answers = Answers::new(place, &current);
    renderer.on(CALL, move |event, bytes| {
        answers.take::<WAY>(bytes, Work::Trip);
        event.set_return_value(answers.out.bytes())
    });
    let Some(first) = guest.open()? else { return Ok(()) };
    current.set(first);
    let leave = renderer.downgrade();
    renderer.on(CLOSE, move |_, ()| {
        guest.close();
        match guest.open() {
            Ok(Some(segment)) => current.set(segment),
            Ok(None) => {
                if let Some(renderer) = leave.upgrade() {
                    renderer.shutdown();
                }
            }
            Err(error) => give_up(&error),
        }
    });
    Ok(renderer.run()?)
}

/// Ends the guest's process, which its host notices.
fn give_up(error: &dyn std::fmt::Display) -> ! {
    eprintln!("{error}");
    std::process::exit(1)
}
