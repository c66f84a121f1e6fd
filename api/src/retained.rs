//! A message that outlives its listener.
#![allow(unsafe_code)]
//! Invariants:
//! 1. The bytes of a [`Retained<T>`] passed `T::view` before it was made.
//! 2. They do not change while it lives: they are private to this process and not written again, or in memory that the
//!    kernel has sealed, or, under full trust, promised not to change before they are given back.

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc};

use memit_engine::Kept;

use crate::Payload;

/// A message that [`Event::retain`](crate::Event::retain) kept. It derefs to what the listener saw.
///
/// It may go to another thread and stay for any time; clones share the one message. When the last of them is dropped, in
/// whatever thread, and be it long after the connection's end, the memory is given back.
///
/// ```
/// use memit::{Channel, IpcMain, IpcRenderer};
///
/// const SAMPLES: Channel<[f64]> = Channel::new("samples");
///
/// # let app = format!("retained-{}", std::process::id());
/// let main = IpcMain::bind(&app)?;
/// let (work, samples) = std::sync::mpsc::channel();
/// main.on(SAMPLES, move |event, _| work.send(event.retain()));
/// let worker = std::thread::spawn(move || samples.recv().map(|samples| samples.iter().sum::<f64>()));
///
/// let renderer = IpcRenderer::connect(&app)?;
/// renderer.send(SAMPLES, &vec![0.5; 100_000])?;
/// # while !worker.is_finished() {
/// main.run_once(std::time::Duration::from_millis(100))?;
/// # }
/// assert_eq!(worker.join().unwrap()?, 50_000.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Retained<T: Payload + ?Sized> {
    kept: Kept,
    view: PhantomData<Arc<T::View>>,
}

impl<T: Payload + ?Sized> Retained<T> {
    /// # Safety
    ///
    /// `T::view(&kept)` would be `Ok`.
    pub(crate) unsafe fn new(kept: Kept) -> Self {
        Self { kept, view: PhantomData }
    }

    /// The message itself.
    pub fn into_owned(self) -> T::Owned {
        T::own(&self)
    }
}

impl<T: Payload + ?Sized> Deref for Retained<T> {
    type Target = T::View;

    #[inline]
    fn deref(&self) -> &T::View {
        // SAFETY: by 1 the bytes are valid, and by 2 they have not changed since.
        unsafe { T::view_unchecked(&self.kept) }
    }
}

impl<T: Payload + ?Sized> Clone for Retained<T> {
    fn clone(&self) -> Self {
        Self { kept: self.kept.clone(), view: PhantomData }
    }
}

impl<T: Payload<View: fmt::Debug> + ?Sized> fmt::Debug for Retained<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Payload<View: fmt::Display> + ?Sized> fmt::Display for Retained<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A retained message compares as its archived form does.
impl<T: Payload<View: PartialEq<U>> + ?Sized, U: ?Sized> PartialEq<U> for Retained<T> {
    fn eq(&self, other: &U) -> bool {
        **self == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Args, Failure, Value};

    #[test]
    fn a_retained_payload_goes_to_any_thread() {
        fn goes<T: Send + Sync + 'static>() {}
        goes::<Retained<str>>();
        goes::<Retained<[f64]>>();
        goes::<Retained<Vec<Option<Box<String>>>>>();
        goes::<Retained<Args>>();
        goes::<Retained<Value>>();
        goes::<Retained<Failure>>();
    }
}
