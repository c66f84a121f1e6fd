//! What Ctrl-C does.

use std::{io, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

/// Calls `end`, on a thread of its own, with the number of the first SIGINT or SIGTERM. The second one does what it
/// does by default: it ends the process at once.
pub(crate) fn on_interrupt(end: impl FnOnce(i32) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut received = signals.forever();
        if let Some(signal) = received.next() {
            end(signal);
        }
        if let Some(signal) = received.next() {
            // It fails only for signals that may not be handled at all.
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}
