//! Two raw rings between the processes: claim, commit, poll, release, and nothing else.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memit::{Failure, WaitStrategy};
use memit_ringbuf::{Capacity, Consumer, Header, Key, MappedRing, MappedRingMut, OwnCursor, PeerCursor, Producer};

use super::Report;
use crate::message;
use crate::peer::{CONTROL, Order, Peer};
use crate::row::Row;
use crate::setting::{Pace, Setting};
use crate::shared::Shared;
use crate::stage::{APP, Cast, Stage};
use crate::{Result, board};

pub(super) const ROLE: &str = "ring";

/// A frame is at most an eighth of it.
const RING: usize = 64 * 1024;
const MOST: usize = RING / 8 - 16;
const RINGS: [usize; 2] = [board::LEN, board::LEN + RING];
const KEY: u64 = 0x9e37_79b9_7f4a_7c15;

/// Answers so many frames.
const ECHO: u64 = Order::OWN;

pub(super) fn has(len: usize) -> bool {
    (1..=MOST).contains(&len)
}

struct Head(Arc<Shared>, usize);

impl PeerCursor for Head {
    fn load(&self) -> u64 {
        self.0.word(self.1).load(Ordering::Relaxed)
    }
}

impl OwnCursor for Head {
    fn store(&self, position: u64) {
        self.0.word(self.1).store(position, Ordering::Release);
    }
}

type Out = Producer<MappedRingMut<Arc<Shared>>, Head>;
type In = Consumer<MappedRing<Arc<Shared>>, Head>;

/// The two ends of a side: it writes ring `own` and reads the other.
#[allow(unsafe_code)]
fn ends(shared: &Arc<Shared>, own: usize) -> Result<(Out, In)> {
    let capacity = Capacity::new(RING)?;
    let key = Key::new(KEY).ok_or("the key's low bits are zero")?;
    let other = 1 - own;
    // SAFETY: the ring's bytes lie within the mapping, which the Arc keeps alive, and only this side writes them.
    let out = unsafe { MappedRingMut::new(shared.at(RINGS[own]), capacity, Arc::clone(shared)) };
    // SAFETY: as above; this side only reads them.
    let input = unsafe { MappedRing::new(shared.at(RINGS[other]), capacity, Arc::clone(shared)) };
    let producer = Producer::new(out, Head(Arc::clone(shared), board::HEADS[own]), key);
    let consumer = Consumer::new(input, Head(Arc::clone(shared), board::HEADS[other]), key);
    Ok((producer, consumer))
}

fn put(out: &Out, bytes: &[u8]) {
    let mut claim = loop {
        if let Ok(claim) = out.try_claim(bytes.len()) {
            break claim;
        }
        spin_loop();
    };
    claim.write(0, bytes);
    claim.commit(Header { channel: 1, kind: 1, flags: 0 });
}

fn take(input: &mut In, bytes: &mut [u8]) -> Result<()> {
    loop {
        if let Some(frame) = input.poll()?.frame() {
            frame.copy_to(bytes);
            frame.release();
            return Ok(());
        }
    }
}

pub(super) fn peer(peer: &Peer) -> Result<()> {
    let mut bytes = vec![0; peer.number(0)?];
    let (out, mut input) = ends(&peer.shared, 1)?;
    let renderer = peer.builder().connect(APP)?;
    peer.pin()?;
    peer.obey(&renderer, move |order, rounds| {
        if order != ECHO {
            return Err(Failure::new(format_args!("there is no order {order} for rings")));
        }
        for _ in 0..rounds {
            take(&mut input, &mut bytes).map_err(Failure::new)?;
            put(&out, &bytes);
        }
        Ok(())
    });
    Ok(renderer.run()?)
}

pub(super) fn measure(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    let len = setting.payload_or(message::LEN);
    let cast = Cast { numbers: &[len as u64], shared: 2 * RING, ..Cast::new(ROLE, WaitStrategy::Spin) };
    let stage = Stage::set(setting, &cast)?;
    let (out, mut input) = ends(&stage.shared, 0)?;
    let plan = setting.plan(Pace::Spin, len);
    let (mut sent, mut came) = (vec![7_u8; len], vec![0_u8; len]);
    let outcome = stage.course(plan, stage.line(&plan))?.drive(|rounds, laps| {
        stage.peer.send(CONTROL, &(ECHO, rounds))?;
        let began = laps.begin();
        for round in 0..rounds {
            for (byte, number) in sent.iter_mut().zip(round.to_le_bytes()) {
                *byte = number;
            }
            put(&out, &sent);
            take(&mut input, &mut came)?;
            if came != sent {
                return Err("the ring changed a message".into());
            }
            laps.lap();
        }
        Ok(began.elapsed())
    })?;
    report(Row::empty(setting, "ring", WaitStrategy::Spin, len).with("bare line", &outcome))
}
