//! Every attack by its name, and the program that carries one out, again and again, until it is killed.

mod bells;
mod bits;
mod calls;
mod channels;
mod descriptors;
pub mod fuse;
mod handshakes;
mod heads;
mod lengths;
mod memories;
mod one_way;
mod payloads;
mod scribble;
mod space;

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::seed::Random;
use crate::supervise::Plan;
use crate::support::common::say;
use crate::wire::handshake::{self, Terms};
use crate::wire::peer::{ASK, NAMES, PING, Peer, Side};
use crate::wire::sys;

/// What must become of the attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Each time, the connection ends, and the reason that the application is told is a violation with one of these texts.
    Punished(&'static [&'static str]),
    /// It is not admitted.
    Refused,
    /// Nothing: it breaks no rule that could be looked after, and harms itself alone.
    Ignored,
    /// Either, as it happens to hit.
    Either,
}

#[derive(Clone, Copy)]
pub enum Act {
    /// On a connection that was made by all the rules.
    Connected(fn(&mut Peer, &mut Turn)),
    /// The same, where the handshake says something in particular.
    ConnectedBy(fn(&mut Terms), fn(&mut Peer, &mut Turn)),
    /// From the first packet of the handshake on.
    Greeting(fn(&OwnedFd, Side, &mut Turn)),
}

#[derive(Clone, Copy)]
pub struct Attack {
    pub name: &'static str,
    pub sides: &'static [Side],
    pub verdict: Verdict,
    pub act: Act,
    /// In how many forms it comes, turn by turn; all of them are tried.
    pub forms: usize,
}

impl Attack {
    const fn in_forms(self, forms: usize) -> Self {
        Self { forms, ..self }
    }
}

pub const BOTH: &[Side] = &[Side::Renderer, Side::Main];
pub const RENDERER: &[Side] = &[Side::Renderer];
pub const MAIN: &[Side] = &[Side::Main];

/// An attack from either side on a connection that works.
const fn attack(name: &'static str, verdict: Verdict, act: fn(&mut Peer, &mut Turn)) -> Attack {
    Attack { name, sides: BOTH, verdict, act: Act::Connected(act), forms: 1 }
}

/// One file, one family.
pub const FAMILIES: &[(&str, &[Attack])] = &[
    ("scribble", scribble::ATTACKS),
    ("heads", heads::ATTACKS),
    ("bits", bits::ATTACKS),
    ("payloads", payloads::ATTACKS),
    ("bells", bells::ATTACKS),
    ("space", space::ATTACKS),
    ("calls", calls::ATTACKS),
    ("channels", channels::ATTACKS),
    ("handshakes", handshakes::ATTACKS),
    ("descriptors", descriptors::ATTACKS),
    ("memories", memories::ATTACKS),
    ("lengths", lengths::ATTACKS),
    ("one_way", one_way::ATTACKS),
];

/// One go at the victim.
pub struct Turn {
    pub random: Random,
    /// Counted from 0, so that an attack with several forms can go through them.
    pub number: usize,
}

impl Turn {
    /// Tells the test that the attack is in full swing, or has been carried out.
    pub fn struck(&mut self) {
        self.number += 1;
        // The test needs to know of the first few, and how it goes on; not of each.
        if self.number < 64 || self.number.is_multiple_of(64) {
            say("struck");
        }
    }

    /// Goes round until the victim hangs up, or this process is killed.
    fn until_over(&mut self, peer: &mut Peer, mut act: impl FnMut(&mut Peer, &mut Random)) {
        let mut rounds = 0_u32;
        while !rounds.is_multiple_of(16) || !peer.is_over() {
            act(peer, &mut self.random);
            rounds += 1;
            if rounds == 4 {
                self.struck();
            }
        }
    }
}

/// What the test starts this program for.
pub struct Order {
    pub directory: String,
    pub attack: Attack,
    pub side: Side,
    pub seed: u64,
}

impl Order {
    pub fn to_line(&self) -> String {
        format!("{} {:?} {} {}", self.attack.name, self.side, self.seed, self.directory)
    }

    pub fn parse(line: &str) -> Self {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap().to_owned();
        let (name, side, seed, directory) = (word(), word(), word(), word());
        let mut attacks = FAMILIES.iter().flat_map(|(_, attacks)| attacks.iter());
        let attack = *attacks.find(|attack| attack.name == name).unwrap();
        let side = if side == "Main" { Side::Main } else { Side::Renderer };
        Self { directory, attack, side, seed: seed.parse().unwrap() }
    }
}

/// The hostile program. It ends by itself only if the victim does not do what it should.
pub fn carry_out(order: &Order) -> ! {
    sys::pin(1);
    if Plan::from_environment().is_measured {
        sys::stand_back();
    }
    let directory = Path::new(&order.directory);
    let bound = (order.side == Side::Main).then(|| handshake::bind_as(directory, EVIL));
    say("ready");
    let mut turn = Turn { random: Random::new(order.seed), number: 0 };
    loop {
        let socket = match &bound {
            Some(bound) => bound.accept(),
            None => handshake::call_on(directory, "app"),
        };
        let mut terms = Terms::default();
        let act = match order.attack.act {
            Act::Greeting(act) => {
                act(&socket, order.side, &mut turn);
                continue;
            }
            Act::ConnectedBy(adapt, act) => {
                adapt(&mut terms);
                act
            }
            Act::Connected(act) => act,
        };
        let Some(mut peer) = handshake::shake(socket, order.side, &terms) else {
            // A renderer may be told to leave at any time, and on a busy machine this may be too slow for a main. If it
            // were always refused, it would never strike, which the test does not let pass.
            continue;
        };
        let is_announced = peer.announce(PING, b"ping", b"slice<u8>", b"()")
            && peer.announce(NAMES, b"names", b"vec<string>", b"()")
            && peer.announce(ASK, b"ask", b"slice<u8>", b"slice<u8>");
        if is_announced {
            act(&mut peer, &mut turn);
        }
        match order.attack.verdict {
            Verdict::Punished(_) => {
                assert!(peer.is_punished(), "turn {} went unpunished", turn.number);
                turn.struck();
            }
            Verdict::Either => {}
            Verdict::Ignored | Verdict::Refused => {
                // A renderer that left in order says so before it hangs up.
                let has_left = order.side == Side::Main && peer.has_left();
                assert!(has_left, "it was punished for what breaks no rule");
            }
        }
    }
}

/// The name under which a hostile main can be found.
pub const EVIL: &str = "evil";
