//! Payload memory: blocks that are read, given back and written again; extents that are retired; threads that wait.
//!
//! The word at the beginning of a block stands for all its bytes. As in the product it is written and read without any
//! order of its own: a reader that could find what its sender writes next would find it here.

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::sync::atomic::Ordering;
use loom::thread;

use super::explore::explore;
use super::frames::Frames;
use super::link::Link;
use crate::outbox::GiveBack;
use crate::payload::PAGE;
use crate::payload::arena::NoMemory;
use crate::payload::inbound::{Block, Held, NotTaken};
use crate::payload::ledger;
use crate::payload::location::Location;
use crate::sys::socket::MemoryKind;

/// Writes `value` to a block, lends it, and has the peer get the extent. The frame stands for the ring: it brings what
/// was written before, and nothing on the way back.
fn send(from: &Link, to: &Link, frames: &Frames<Location>, value: u64) -> ledger::Block {
    let borrowed = from.borrow(PAGE);
    let block = borrowed.block;
    borrowed.map.write(block.offset, &value.to_le_bytes());
    from.arena.lend(&block);
    if borrowed.is_unpassed {
        let pass = |fd: std::os::fd::BorrowedFd<'_>| {
            to.inbound.pass(block.memory, MemoryKind::Extent, fd.try_clone_to_owned().unwrap()).unwrap();
            Ok(())
        };
        from.arena.pass_extent(block.memory, pass).unwrap();
    }
    let (offset, len) = (block.offset as u64, PAGE as u64);
    frames.send(Location::Block { memory: block.memory, generation: block.generation, offset, len });
    block
}

fn take(at: &Link, frames: &Frames<Location>) -> Block {
    match at.inbound.take(frames.take()) {
        Ok(Held::Block(block)) => block,
        other => panic!("{other:?}"),
    }
}

fn read(block: &Block) -> u64 {
    let mut bytes = [0; PAGE];
    block.copy_to(&mut bytes);
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

/// There is one block. Its sender sleeps until the first message is given back.
#[test]
fn a_block_is_written_again_only_when_it_was_read() {
    explore(None, || {
        let [ours, theirs] = Link::pair(1);
        let frames = Arc::new(Frames::new());
        let receiver = {
            let (theirs, frames) = (Arc::clone(&theirs), Arc::clone(&frames));
            thread::spawn(move || {
                for value in 1..=2 {
                    assert_eq!(read(&take(&theirs, &frames)), value);
                }
            })
        };
        for value in 1..=2 {
            send(&ours, &theirs, &frames, value);
        }
        receiver.join().unwrap();
    });
}

/// Two threads keep a block each and let go of it at once. Anything that is given back twice, or is of a kind or an age
/// that is not lent, is a violation for the sender, who reads all of it.
#[test]
fn blocks_that_two_threads_keep_are_given_back_once_each() {
    explore(Some(3), || {
        let [ours, theirs] = Link::pair(2);
        let frames = Arc::new(Frames::new());
        for value in 1..=2 {
            send(&ours, &theirs, &frames, value);
        }
        let keepers = [1, 2].map(|value| {
            let block = take(&theirs, &frames);
            thread::spawn(move || assert_eq!(read(&block), value))
        });
        // Both pages at once: there is no other way to have them than that both were given back.
        let whole = ours.borrow(2 * PAGE);
        whole.map.write(0, &3_u64.to_le_bytes());
        keepers.into_iter().for_each(|keeper| keeper.join().unwrap());
        ours.arena.cancel(&whole.block);
    });
}

/// Two threads meet an extent first, both at once: one maps it, and the other waits for that.
#[test]
fn an_extent_that_two_threads_meet_first_is_mapped_once_for_both() {
    explore(Some(3), || {
        let [ours, theirs] = Link::pair(2);
        let frames = Arc::new(Frames::new());
        for value in 1..=2 {
            send(&ours, &theirs, &frames, value);
        }
        let readers = [1, 2].map(|value| {
            let (theirs, location) = (Arc::clone(&theirs), frames.take());
            thread::spawn(move || match theirs.inbound.take(location) {
                Ok(Held::Block(block)) => assert_eq!(read(&block), value),
                other => panic!("{other:?}"),
            })
        });
        let whole = ours.borrow(2 * PAGE);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        ours.arena.cancel(&whole.block);
    });
}

/// A peer retires an extent that it has lent, before it is mapped, meanwhile, or when it is read.
#[test]
fn an_extent_that_a_peer_retires_while_it_is_mapped_is_given_back_once_and_last() {
    explore(Some(3), || {
        let [ours, theirs] = Link::pair(1);
        let frames = Arc::new(Frames::new());
        let block = send(&ours, &theirs, &frames, 1);
        let (at, location) = (Arc::clone(&theirs), frames.take());
        let reader = thread::spawn(move || match at.inbound.take(location) {
            Ok(Held::Block(block)) => assert_eq!(read(&block), 1),
            // It was retired before.
            Err(NotTaken::Missing { memory: 1 }) => {}
            other => panic!("{other:?}"),
        });
        theirs.inbound.retire(block.memory, &theirs.own).unwrap();
        reader.join().unwrap();
        let seen = &ours.peer;
        let given: Vec<_> = (0..seen.load_given()).map(|n| seen.read_give_back(n).unwrap()).collect();
        assert!(
            matches!(given[..], [GiveBack::Memory { memory: 1 }] | [_, GiveBack::Memory { memory: 1 }]),
            "{given:?}"
        );
        assert!(matches!(theirs.inbound.retire(block.memory, &theirs.own), Err(NotTaken::Missing { memory: 1 })));
        ours.arena.cancel(&block);
    });
}

/// The extent retires between the moment at which its last block is given back and that at which the thread that kept it
/// lets go of the extent; or before, or after.
#[test]
fn a_retired_extent_is_given_back_once_and_last() {
    explore(None, || {
        let [ours, theirs] = Link::pair(1);
        let frames = Arc::new(Frames::new());
        send(&ours, &theirs, &frames, 1);
        let block = take(&theirs, &frames);
        let keeper = thread::spawn(move || assert_eq!(read(&block), 1));
        let tell = |number| {
            theirs.inbound.retire(number, &theirs.own).unwrap();
            theirs.ring_given();
            true
        };
        // Unused for a while: three sweeps see it in use, idle, and gone at the earliest.
        while ours.arena.sweep(tell).unwrap() {
            thread::yield_now();
        }
        keeper.join().unwrap();
        // There is room for another extent, with a number of its own.
        assert_eq!(ours.borrow(PAGE).block.memory, 2);
    });
}

/// What a thread has borrowed and does not send is room for another: nobody but itself tells.
#[test]
fn a_block_that_is_taken_back_wakes_who_waits_for_room() {
    explore(None, || {
        let [ours, _theirs] = Link::pair(1);
        let held = ours.borrow(PAGE).block;
        let other = Arc::clone(&ours);
        let waiter = thread::spawn(move || other.borrow(PAGE).block.generation);
        ours.arena.cancel(&held);
        assert_eq!(waiter.join().unwrap(), held.generation + 1);
    });
}

/// Two threads wait for one block each time, and one is given back by the peer, the other taken back.
#[test]
fn all_threads_that_wait_for_room_get_it() {
    explore(Some(3), || {
        let [ours, theirs] = Link::pair(2);
        let frames = Arc::new(Frames::new());
        send(&ours, &theirs, &frames, 1);
        let block = take(&theirs, &frames);
        let held = ours.borrow(PAGE).block;
        let waiters = [0; 2].map(|_| {
            let ours = Arc::clone(&ours);
            thread::spawn(move || ours.borrow(PAGE).block.offset)
        });
        drop(block);
        ours.arena.cancel(&held);
        let mut offsets = waiters.map(|waiter| waiter.join().unwrap());
        offsets.sort_unstable();
        assert_eq!(offsets, [0, PAGE]);
    });
}

/// The dispatching thread queues what it has no room for, and sleeps on words of its own.
#[test]
fn a_block_that_is_taken_back_wakes_the_dispatching_thread_for_its_backlog() {
    explore(None, || {
        let [ours, _theirs] = Link::pair(1);
        let held = ours.borrow(PAGE).block;
        let other = Arc::clone(&ours);
        let maker = thread::spawn(move || other.arena.cancel(&held));
        while let Err(NoMemory::Full(seen)) = ours.arena.borrow(PAGE) {
            ours.backlog.store(true, Ordering::Relaxed);
            ours.sleep(&ours.news, seen);
        }
        maker.join().unwrap();
    });
}

/// Nobody needs the descriptor any more.
#[test]
fn an_extent_that_was_never_passed_goes_without_the_peer() {
    explore(None, || {
        let [ours, _theirs] = Link::pair(1);
        let held = ours.borrow(PAGE);
        let other = Arc::clone(&ours);
        let waiter = thread::spawn(move || other.borrow(PAGE).block.memory);
        ours.arena.cancel(&held.block);
        drop(held);
        assert_eq!(waiter.join().unwrap(), 1);
    });
}
