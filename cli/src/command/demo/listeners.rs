//! The listeners of the demo's main.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use memit::{IpcMain, Payload, SendError};

use super::{
    channel::{GREETING, HELLO, LINE, PING, PROGRESS, REPORT, Report, TOTALS},
    tally::Tally,
};

/// Messages from one look at whether to show progress to the next.
const SHOW_EVERY: u64 = 1000;

/// The tally, as listeners and waiting threads share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<Tally>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often the listeners ran that the demo checks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    once: Arc<AtomicU32>,
    removed: Arc<AtomicU32>,
}

impl Runs {
    /// A sentence for each listener that did not run as often as it must.
    pub(crate) fn failures(&self) -> Vec<String> {
        let (once, removed) = (self.once.load(Ordering::Relaxed), self.removed.load(Ordering::Relaxed));
        let mut failures = Vec::new();
        if once != 1 {
            failures.push(format!("the main's once listener ran {once} times, expected 1"));
        }
        if removed != 0 {
            failures.push(format!("a listener that was removed before the first message ran {removed} times"));
        }
        failures
    }
}

/// Adds all listeners to `main`. `progress` hears now and then of lines and bytes.
pub(crate) fn listen(main: &IpcMain, tally: &Shared, mut progress: impl FnMut(u64, u64) + Send + 'static) -> Runs {
    let runs = Runs::default();
    let counter = Arc::clone(&runs.once);
    main.once(HELLO, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let counter = Arc::clone(&runs.removed);
    let id = main.on(HELLO, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    if !main.remove_listener(HELLO, id) {
        tally.lock().fail("remove_listener did not find a listener that had just been added".into());
    }

    let shared = tally.clone();
    main.on(HELLO, move |event, number| {
        shared.lock().hello(event.peer().id, number.to_native());
        for _ in 0..2 {
            event.reply(GREETING, &number.to_native())?;
        }
        memit::ok()
    });

    let shared = tally.clone();
    let mut messages = 0_u64;
    main.on(LINE, move |event, line| {
        let peer = event.peer().id;
        let mut tally = shared.lock();
        let (number, piece) = (line.number.to_native(), line.piece.to_native());
        if let Some(lines) = tally.line(peer, number, piece, line.last, &line.bytes) {
            match event.sender().send(PROGRESS, &lines) {
                Ok(()) => tally.answered(peer, true),
                Err(SendError::Full { .. }) => tally.answered(peer, false),
                // The connection is gone, as its disconnect listener is about to hear.
                Err(_) => {}
            }
        }
        messages += 1;
        if messages.is_multiple_of(SHOW_EVERY) {
            let (lines, bytes) = tally.sum();
            progress(lines, bytes);
        }
    });

    let shared = tally.clone();
    main.on(TOTALS, move |event, _| match shared.lock().totals(event.peer().id) {
        Some(totals) => event.set_return_value(&totals),
        None => Ok(()),
    });
    main.on(PING, |event, number| event.set_return_value(&number.to_native()));
    let shared = tally.clone();
    main.on(REPORT, move |event, report| shared.lock().report(event.peer().id, Report::own(report)));

    let shared = tally.clone();
    main.on_connect(move |_| shared.lock().connected());
    let (shared, handle) = (tally.clone(), main.downgrade());
    main.on_disconnect(move |peer, reason| {
        let mut tally = shared.lock();
        tally.disconnected(peer.id, &reason.to_string());
        if tally.is_over()
            && let Some(main) = handle.upgrade()
        {
            main.shutdown();
        }
    });
    let shared = tally.clone();
    main.on_error(move |error| shared.lock().fail(error.to_string()));
    runs
}
