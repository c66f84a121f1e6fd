//! What several of the tests need.

use memit::{EncodeAs, Payload, encode::with_encoded, rkyv::util::AlignedVec};

/// Bytes as a receiver has them: aligned to 16.
pub(crate) fn received(bytes: &[u8]) -> AlignedVec<16> {
    // One that has no memory is not aligned, which a receiver's bytes always are.
    let mut received = AlignedVec::with_capacity(bytes.len().max(1));
    received.extend_from_slice(bytes);
    received
}

pub(crate) fn encoded<T: Payload + ?Sized>(message: &(impl EncodeAs<T> + ?Sized)) -> AlignedVec<16> {
    with_encoded::<T, _, _>(message, received).unwrap()
}

/// Sends a message to oneself.
pub(crate) fn round_trip<T: Payload + ?Sized>(message: &(impl EncodeAs<T> + ?Sized)) -> T::Owned {
    T::own(T::view(&encoded::<T>(message)).unwrap())
}

/// Runs `f` on the stack that Rust gives a thread.
pub(crate) fn on_a_small_stack<O: Send + 'static>(f: impl FnOnce() -> O + Send + 'static) -> O {
    std::thread::Builder::new().stack_size(2 << 20).spawn(f).unwrap().join().unwrap()
}
