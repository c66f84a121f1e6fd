//! Which ports the current thread dispatches.
//!
//! A port is known by its random token. The list is as deep as listeners that dispatch other ports are nested, which
//! is one almost always.

use std::cell::RefCell;
use std::marker::PhantomData;

thread_local! {
    static DISPATCHED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Whether the current thread is dispatching the port with this token, here or further up its stack.
pub(crate) fn dispatches(token: u64) -> bool {
    DISPATCHED.try_with(|dispatched| dispatched.borrow().contains(&token)).unwrap_or(false)
}

/// Marks the current thread as the one that dispatches a port, until dropped.
#[derive(Debug)]
pub(crate) struct Dispatching {
    token: u64,
    _not_send: PhantomData<*const ()>,
}

impl Dispatching {
    pub(crate) fn begin(token: u64) -> Self {
        DISPATCHED.with(|dispatched| dispatched.borrow_mut().push(token));
        Self { token, _not_send: PhantomData }
    }
}

impl Drop for Dispatching {
    fn drop(&mut self) {
        // The thread may be ending, and its list gone.
        let _ = DISPATCHED.try_with(|dispatched| {
            let mut dispatched = dispatched.borrow_mut();
            if let Some(at) = dispatched.iter().rposition(|token| *token == self.token) {
                dispatched.swap_remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_dispatches_between_begin_and_drop_and_others_do_not() {
        let outer = Dispatching::begin(1);
        let inner = Dispatching::begin(2);
        assert!(dispatches(1) && dispatches(2));
        assert!(!std::thread::spawn(|| dispatches(1)).join().unwrap());
        drop(inner);
        assert!(dispatches(1) && !dispatches(2));
        drop(outer);
        assert!(!dispatches(1));
    }
}
