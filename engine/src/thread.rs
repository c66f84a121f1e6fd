//! What the current thread is in the middle of: which ports it dispatches, which links it holds the guard of.
//!
//! A port is known by its random token, a link by its serial number. The list is as deep as listeners that dispatch other
//! ports are nested, and guards are held, which is one almost always.

use std::cell::RefCell;
use std::marker::PhantomData;

/// One thing that a thread is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Dispatches(u64),
    Holds(u64),
}

thread_local! {
    static MARKS: RefCell<Vec<Mark>> = const { RefCell::new(Vec::new()) };
}

fn is_marked(mark: Mark) -> bool {
    MARKS.try_with(|marks| marks.borrow().contains(&mark)).unwrap_or(false)
}

/// Whether the current thread is dispatching the port with this token, here or further up its stack.
pub(crate) fn dispatches(token: u64) -> bool {
    is_marked(Mark::Dispatches(token))
}

/// Whether the current thread holds the guard of the link with this serial number, or has leaked it.
pub(crate) fn holds(serial: u64) -> bool {
    is_marked(Mark::Holds(serial))
}

/// Marks the current thread, until dropped.
#[derive(Debug)]
pub(crate) struct Marked {
    mark: Mark,
    _not_send: PhantomData<*const ()>,
}

impl Marked {
    /// As the one that dispatches a port.
    pub(crate) fn dispatching(token: u64) -> Self {
        Self::with(Mark::Dispatches(token))
    }

    /// As the one that holds the guard of a link.
    pub(crate) fn holding(serial: u64) -> Self {
        Self::with(Mark::Holds(serial))
    }

    fn with(mark: Mark) -> Self {
        MARKS.with(|marks| marks.borrow_mut().push(mark));
        Self { mark, _not_send: PhantomData }
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        // The thread may be ending, and its list gone.
        let _ = MARKS.try_with(|marks| {
            let mut marks = marks.borrow_mut();
            if let Some(at) = marks.iter().rposition(|mark| *mark == self.mark) {
                marks.swap_remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_dispatches_between_begin_and_drop_and_others_do_not() {
        let outer = Marked::dispatching(1);
        let inner = Marked::dispatching(2);
        assert!(dispatches(1) && dispatches(2));
        assert!(!std::thread::spawn(|| dispatches(1)).join().unwrap());
        drop(inner);
        assert!(dispatches(1) && !dispatches(2));
        drop(outer);
        assert!(!dispatches(1));
    }

    #[test]
    fn a_thread_that_holds_a_link_does_not_dispatch_the_port_of_that_number() {
        let held = Marked::holding(7);
        assert!(holds(7) && !dispatches(7) && !holds(8));
        assert!(!std::thread::spawn(|| holds(7)).join().unwrap());
        drop(held);
        assert!(!holds(7));
    }
}
