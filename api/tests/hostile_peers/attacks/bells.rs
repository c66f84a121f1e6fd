//! Misuses bells, waiters and shared descriptors. Little of it is against a rule that could be looked after: what a peer
//! makes of its own wake-ups is its own affair. The victim must not sleep through anything else.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{OFlags, fcntl_setfl};

use super::{Act, Attack, BOTH, MAIN, RENDERER, Turn, Verdict, attack};
use crate::wire::handshake::{Terms, borrowed};
use crate::wire::outbox::{self, BLOCKS_ARMED, DATA_ARMED, DATA_BELL, SPACE_ARMED, SPACE_BELL, SPACE_WANTED, WAITING};
use crate::wire::peer::{MESSAGE, PING, Peer};
use crate::wire::sys;

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
    Attack {
        name: "asks_for_credentials_on_the_victim_s_bell",
        sides: MAIN,
        verdict: Verdict::Either,
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
        while sys::send(&peer.bells[0], &ring, &[]).is_ok() {}
        peer.keep_up();
    });
}

/// Each packet with as many descriptors as the kernel takes, the bell itself among them.
fn rings_with_descriptors(peer: &mut Peer, turn: &mut Turn) {
    let files: Vec<OwnedFd> = (0..sys::MOST_DESCRIPTORS - 1).map(|_| outbox::memfd()).collect();
    turn.until_over(peer, |peer, random| {
        let mut descriptors = borrowed(&files[..random.below(files.len())]);
        descriptors.push(peer.bells[0].as_fd());
        let _ = sys::send(&peer.bells[0], &[1], &descriptors);
        peer.rest();
        peer.keep_up();
    });
}

/// Takes the rings that are its own, and, where it has a copy of the victim's end, the victim's.
fn drains_the_bell(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| {
        for bell in &peer.bells {
            while let Ok(Some(_)) = sys::receive(bell) {}
        }
        peer.publish(MESSAGE, PING, 0, b"who will hear of it?");
        peer.keep_up();
    });
}

/// Status flags belong to the open file, which both processes have: what the victim calls must not come to wait.
fn changes_flags(peer: &mut Peer, turn: &mut Turn) {
    let flags = [OFlags::empty(), OFlags::NONBLOCK, OFlags::APPEND, OFlags::from_bits_retain(libc::O_ASYNC as u32)];
    turn.until_over(peer, |peer, random| {
        for fd in peer.bells.iter().chain([&peer.socket, &peer.their_outbox]) {
            let _ = fcntl_setfl(fd, random.one_of(&flags) | random.one_of(&flags));
        }
        while sys::send(&peer.bells[0], &[1], &[]).is_ok() {}
        peer.publish(MESSAGE, PING, 0, b"does it wait?");
        peer.keep_up();
        for fd in [&peer.bells[0], &peer.socket] {
            fcntl_setfl(fd, OFlags::NONBLOCK).unwrap();
        }
    });
}

/// Main has a copy of the renderer's end of the bell, and can have the kernel add to each ring the sender's credentials,
/// or a new descriptor of its process.
fn changes_socket_options(peer: &mut Peer, turn: &mut Turn) {
    const SO_PASSPIDFD: i32 = 76;
    turn.until_over(peer, |peer, _| {
        for option in [libc::SO_PASSCRED, SO_PASSPIDFD, libc::SO_PASSSEC] {
            sys::set_socket_option(&peer.bells[1], option, 1);
        }
        let _ = sys::send(&peer.bells[0], &[1], &[]);
        peer.publish(MESSAGE, PING, 0, b"who am I?");
        peer.keep_up();
    });
}

/// Closing is an end like any other.
fn closes_the_bell(peer: &mut Peer, turn: &mut Turn) {
    let how = turn.random.one_of(&[rustix::net::Shutdown::Both, rustix::net::Shutdown::Write]);
    rustix::net::shutdown(&peer.bells[0], how).unwrap();
    peer.own.word32(DATA_BELL).fetch_add(1, Ordering::Relaxed);
    for _ in 0..8 {
        peer.try_publish(MESSAGE, PING, 0, b"still here");
        peer.rest();
    }
    turn.struck();
}
