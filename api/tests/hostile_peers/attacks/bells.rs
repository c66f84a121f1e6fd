//! Misuses bells, waiters and shared descriptors. Little of it is against a rule that could be looked after: what a peer
//! makes of its own wake-ups is its own affair. The victim must not sleep through anything else.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{OFlags, fcntl_setfl};

use super::{Act, Attack, BOTH, MAIN, RENDERER, Turn, Verdict, attack, fuse};
use crate::wire::handshake::{Terms, borrowed};
use crate::wire::outbox::{self, BLOCKS_ARMED, DATA_ARMED, DATA_BELL, SPACE_ARMED, SPACE_BELL, SPACE_WANTED, WAITING};
use crate::wire::peer::{MESSAGE, PING, Peer};
use crate::wire::sys;

/// The kind of sleeper that polls its bell's socket.
const DESCRIPTOR: u64 = 2;

pub const ATTACKS: &[Attack] = &[
    attack("rings_madly", Verdict::Ignored, rings_madly),
    attack("arms_madly", Verdict::Ignored, arms_madly),
    attack("requeues_waiters", Verdict::Ignored, requeues),
    attack("fills_the_bell_socket", Verdict::Ignored, fills_the_bell),
    Attack {
        name: "rings_with_descriptors",
        sides: RENDERER,
        verdict: Verdict::Punished(&["ring of the bell"]),
        act: Act::Connected(rings_with_descriptors),
        forms: 1,
    },
    Attack {
        name: "rings_a_renderer_with_descriptors",
        sides: MAIN,
        // One that waits on words alone never reads them.
        verdict: Verdict::Either,
        act: Act::Connected(rings_with_descriptors),
        forms: 1,
    },
    attack("drains_the_bell_socket", Verdict::Ignored, drains_the_bell),
    attack("changes_status_flags", Verdict::Ignored, changes_flags),
    attack("holds_up_its_own_receive", Verdict::Ignored, holds_receive),
    Attack {
        name: "changes_what_comes_with_a_ring",
        sides: BOTH,
        verdict: Verdict::Ignored,
        act: Act::Connected(changes_socket_options),
        forms: 1,
    },
    Attack {
        name: "says_that_it_is_registered",
        sides: BOTH,
        verdict: Verdict::Ignored,
        act: Act::ConnectedBy(|terms: &mut Terms| terms.capabilities = 3, honest_traffic),
        forms: 1,
    },
    attack("closes_the_bell", Verdict::Either, closes_the_bell),
];

/// Every bell of the outbox.
fn bells(peer: &Peer) -> Vec<usize> {
    let replies = (0..peer.shape.slots).map(|slot| peer.shape.reply_bell(slot));
    [DATA_BELL, SPACE_BELL].into_iter().chain(replies).collect()
}

/// Reads and sends a little, as if nothing was.
fn honest_traffic(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| {
        peer.publish(MESSAGE, PING, 0, b"as if nothing was");
        if peer.keep_up() == 0 {
            peer.rest();
        }
    });
}

fn rings_madly(peer: &mut Peer, turn: &mut Turn) {
    let bells = bells(peer);
    turn.until_over(peer, |peer, random| {
        for _ in 0..64 {
            peer.ring(random.one_of(&bells), random.next());
        }
        peer.keep_up();
    });
}

fn arms_madly(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        for word in [DATA_ARMED, SPACE_ARMED, SPACE_WANTED, BLOCKS_ARMED, WAITING] {
            peer.own.store(word, random.edgy());
        }
        for slot in 0..peer.shape.slots {
            peer.own.store(peer.shape.reply_armed(slot), random.edgy());
        }
        peer.try_publish(MESSAGE, PING, 0, b"who is armed?");
        peer.keep_up();
    });
}

/// Moves the victim's sleepers to a word that nobody wakes, and rings for nothing.
fn requeues(peer: &mut Peer, turn: &mut Turn) {
    let (bells, nowhere) = (bells(peer), AtomicU32::new(0));
    turn.until_over(peer, |peer, random| {
        for bell in &bells {
            sys::futex_requeue(peer.own.word32(*bell), &nowhere);
        }
        if random.below(8) == 0 {
            peer.keep_up();
        }
    });
}

fn fills_the_bell(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        let ring = random.bytes(1 + random.clone().below(200));
        while sys::send(&peer.bells.theirs, &ring, &[]).is_ok() {}
        peer.keep_up();
    });
}

/// Each packet with as many descriptors as the kernel takes, the bell itself among them.
fn rings_with_descriptors(peer: &mut Peer, turn: &mut Turn) {
    let files: Vec<OwnedFd> = (0..sys::MOST_DESCRIPTORS - 1).map(|_| outbox::memfd()).collect();
    turn.until_over(peer, |peer, random| {
        let mut descriptors = borrowed(&files[..random.below(files.len())]);
        descriptors.push(peer.bells.theirs.as_fd());
        let _ = sys::send(&peer.bells.theirs, &[1], &descriptors);
        peer.rest();
        peer.keep_up();
    });
}

/// Reads from every end of a bell that it has.
fn drains_the_bell(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| {
        for bell in peer.bells.all() {
            while let Ok(Some(_)) = sys::receive(bell) {}
        }
        peer.publish(MESSAGE, PING, 0, b"who will hear of it?");
        peer.keep_up();
    });
}

/// Receives from its bell into a page that never comes, which keeps that socket locked for as long as the victim rings it.
fn holds_receive(peer: &mut Peer, turn: &mut Turn) {
    if let Some(file) = fuse::file_that_never_answers() {
        sys::send(&peer.bells.rings_ours, &[1], &[]).unwrap();
        let bell = peer.bells.ours.try_clone().unwrap();
        // Ends with this process.
        std::thread::spawn(move || sys::receive_into_page_of(file, bell));
    }
    turn.until_over(peer, |peer, random| {
        peer.own.store(DATA_ARMED, random.next() | DESCRIPTOR);
        peer.publish(MESSAGE, PING, 0, b"will it wait?");
        peer.keep_up();
        peer.rest();
    });
}

/// Status flags belong to the open file, which both processes have: what the victim calls must not come to wait.
fn changes_flags(peer: &mut Peer, turn: &mut Turn) {
    let flags = [OFlags::empty(), OFlags::NONBLOCK, OFlags::APPEND, OFlags::from_bits_retain(libc::O_ASYNC as u32)];
    turn.until_over(peer, |peer, random| {
        for fd in peer.bells.all().into_iter().chain([&peer.socket, &peer.their_outbox]) {
            let _ = fcntl_setfl(fd, random.one_of(&flags) | random.one_of(&flags));
        }
        while sys::send(&peer.bells.theirs, &[1], &[]).is_ok() {}
        peer.publish(MESSAGE, PING, 0, b"does it wait?");
        peer.keep_up();
        for fd in [&peer.bells.theirs, &peer.socket] {
            fcntl_setfl(fd, OFlags::NONBLOCK).unwrap();
        }
    });
}

/// Has the kernel add to each ring the sender's credentials, or a new descriptor of its process, on every socket that is
/// its own, too.
fn changes_socket_options(peer: &mut Peer, turn: &mut Turn) {
    const SO_PASSPIDFD: i32 = 76;
    turn.until_over(peer, |peer, _| {
        for option in [libc::SO_PASSCRED, SO_PASSPIDFD, libc::SO_PASSSEC] {
            for bell in peer.bells.all() {
                sys::set_socket_option(bell, option, 1);
            }
        }
        let _ = sys::send(&peer.bells.theirs, &[1], &[]);
        peer.publish(MESSAGE, PING, 0, b"who am I?");
        peer.keep_up();
    });
}

/// Closing is an end like any other.
fn closes_the_bell(peer: &mut Peer, turn: &mut Turn) {
    let how = turn.random.one_of(&[rustix::net::Shutdown::Both, rustix::net::Shutdown::Write]);
    rustix::net::shutdown(&peer.bells.theirs, how).unwrap();
    peer.own.word32(DATA_BELL).fetch_add(1, Ordering::Relaxed);
    for _ in 0..8 {
        peer.try_publish(MESSAGE, PING, 0, b"still here");
        peer.rest();
    }
    turn.struck();
}
