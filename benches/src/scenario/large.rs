//! Large messages by size.
//!
//! - `large-trusted`: both sides trust each other fully and lend one another blocks. The listener looks at a few bytes
//!   and lends a block of the same size back. What it costs must not depend on the size.
//! - `large-untrusted`: messages one way, which the receiver copies before it looks at them (`Trust::None`), compared
//!   with one `memcpy` of as many bytes, into memory that is not in the copying core's cache, as the message's is not.
//! - `large-bare`: the same by hand, copied in and out through memory that both processes have mapped. It tells how
//!   fast the two cores pass lines to each other, which differs fivefold between cores that share a cache and cores
//!   that do not: `large-untrusted` cannot be faster.
//! - `large-sealed`: what a receiver pays to map a sealed message, read it and unmap it, compared with what it pays to
//!   copy one and read the copy. One process, without memit: the two ways as the kernel offers them.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use memit::{Builder, Channel, Failure, IpcMain, Sender, Trust, WaitStrategy};

use super::Report;
use crate::Result;
use crate::course::Volley;
use crate::peer::{CONTROL, Order, Peer};
use crate::probe;
use crate::ratio::per_round;
use crate::row::Row;
use crate::sealed::{Copied, Sealed};
use crate::setting::{Pace, Setting};
use crate::stage::{APP, Cast, Stage};
use crate::transfer;

pub(super) const ROLE: &str = "large";

const PAGE: usize = 4096;
const MOST: usize = 64 << 20;
const SIZES: &[usize] = &[4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, MOST];
const QUICK_SIZES: &[usize] = &[4 << 10, 1 << 20, MOST];

/// Extents that hold the largest message, and an arena for one on its way in each direction.
const EXTENT: usize = MOST;
const ARENA: usize = 256 << 20;

/// Each begins with its number.
const LOAN: Channel<[u8]> = Channel::new("loan");
const BACK: Channel<[u8]> = Channel::new("back");
const STREAM: Channel<[u8]> = Channel::new("stream");
/// Asks how many bytes came since it was asked last, in messages that were right.
const CAME: Channel<(), u64> = Channel::new("came");
const NUMBER: usize = size_of::<u64>();
/// What the rest of a message is full of.
const FILL: u8 = 7;

/// Copies so many messages out by hand.
const TAKE: u64 = Order::OWN;

pub(super) fn has(len: usize) -> bool {
    (PAGE..=MOST).contains(&len) && len.is_multiple_of(PAGE)
}

/// Both ends of the trusting connection are this program, which keeps the protocol.
#[allow(unsafe_code)]
fn full() -> Trust {
    // SAFETY: the socket is in a directory of this run's own, so only this program's two halves connect.
    unsafe { Trust::full() }
}

fn roomy<Side>(builder: Builder<Side>) -> Builder<Side> {
    builder.extent_size(EXTENT).arena_limit(ARENA)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
}

pub(super) fn peer(peer: &Peer) -> Result<()> {
    let (trusts, len) = (peer.number(0)? > 0, peer.number(1)?);
    let builder = roomy(peer.builder());
    let renderer = if trusts { builder.trust(full()) } else { builder }.connect(APP)?;
    peer.pin()?;
    renderer.on(LOAN, |event, block| {
        let mut back = event.sender().loan(BACK, block.len())?;
        back[..NUMBER].copy_from_slice(&block[..NUMBER]);
        back.commit()
    });
    let [next, total] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let came = Arc::clone(&total);
    renderer.on(STREAM, move |_, bytes| {
        let expected = next.fetch_add(1, Ordering::Relaxed);
        if number(bytes) == expected && bytes[NUMBER..].iter().step_by(PAGE).all(|byte| *byte == FILL) {
            came.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    });
    renderer.on(CAME, move |event, ()| event.set_return_value(&total.swap(0, Ordering::Relaxed)));
    let (shared, mut to, mut taken) = (Arc::clone(&peer.shared), vec![0; len], 0);
    peer.obey(&renderer, move |order, count| {
        if order != TAKE {
            return Err(Failure::new(format_args!("there is no order {order} for large messages")));
        }
        transfer::take(&shared, &mut to, taken, count);
        taken += count;
        Ok(())
    });
    Ok(renderer.run()?)
}

pub(super) fn measure(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    let one = setting.payload.map(|len| [len]);
    let sizes = one.as_ref().map_or(if setting.quick { QUICK_SIZES } else { SIZES }, |one| &one[..]);
    for row in [trusted, untrusted, bare, sealed] {
        for &len in sizes {
            row(setting, report, len)?;
        }
    }
    Ok(())
}

fn stage(setting: &Setting, trusts: bool, len: usize, shared: usize) -> Result<Stage> {
    let configure: fn(Builder<IpcMain>) -> Builder<IpcMain> =
        if trusts { |builder| roomy(builder).trust(full()) } else { roomy };
    let numbers = [u64::from(trusts), len as u64];
    let cast = Cast { numbers: &numbers, shared, configure, ..Cast::new(ROLE, WaitStrategy::Spin) };
    Stage::set(setting, &cast)
}

fn row(setting: &Setting, name: &str, len: usize) -> Row {
    Row::empty(setting, name, WaitStrategy::Spin, len)
}

fn trusted(setting: &Setting, report: &mut Report<'_>, len: usize) -> Result<()> {
    let stage = stage(setting, true, len, 0)?;
    // The size is not to matter.
    let plan = setting.plan(Pace::Spin, 0);
    let (mut volley, ended) = Volley::new(stage.course(plan, stage.line(&plan))?, &stage.main);
    let peer = stage.peer.clone();
    lend(&peer, len, 1)?;
    stage.main.on(BACK, move |_, block| {
        let answered = if block.len() == len { number(block) } else { 0 };
        volley.answered(answered, |number| lend(&peer, len, number))
    });
    report(row(setting, "large-trusted", len).with("bare line", &ended.wait(&stage.main)?))
}

fn lend(sender: &Sender, len: usize, number: u64) -> Result<()> {
    let mut block = sender.loan(LOAN, len)?;
    block[..NUMBER].copy_from_slice(&number.to_le_bytes());
    Ok(block.commit()?)
}

fn untrusted(setting: &Setting, report: &mut Report<'_>, len: usize) -> Result<()> {
    let stage = stage(setting, false, len, 0)?;
    let plan = setting.plan(Pace::Bulk, len);
    let (mut message, mut next) = (vec![FILL; len], 0_u64);
    let outcome = stage.course(plan, probe::memcpy(len, plan.probe))?.drive(|rounds, laps| {
        let began = laps.begin();
        for _ in 0..rounds {
            message[..NUMBER].copy_from_slice(&next.to_le_bytes());
            next += 1;
            stage.peer.send(STREAM, &message[..])?;
            laps.lap();
        }
        let came = stage.peer.send_sync(CAME, &())?.to_native();
        let took = began.elapsed();
        if came != rounds * len as u64 {
            return Err(format!("{rounds} messages of {len} bytes were sent, and {came} bytes came right").into());
        }
        Ok(took)
    })?;
    report(row(setting, "large-untrusted", len).with("memcpy", &outcome))
}

fn bare(setting: &Setting, report: &mut Report<'_>, len: usize) -> Result<()> {
    let stage = stage(setting, false, len, transfer::shared_len(len))?;
    let plan = setting.plan(Pace::Bulk, len);
    let (message, mut gone) = (vec![FILL; len], 0);
    let outcome = stage.course(plan, probe::memcpy(len, plan.probe))?.drive(|rounds, laps| {
        stage.peer.send(CONTROL, &(TAKE, rounds))?;
        let began = laps.begin();
        transfer::put(&stage.shared, &message, gone, rounds, || laps.lap());
        gone += rounds;
        Ok(began.elapsed())
    })?;
    report(row(setting, "large-bare", len).with("memcpy", &outcome))
}

fn sealed(setting: &Setting, report: &mut Report<'_>, len: usize) -> Result<()> {
    let stage = stage(setting, false, len, 0)?;
    let plan = setting.plan(Pace::Bulk, len);
    let (memory, block, mut private) = (Sealed::new(len)?, Copied::new(len)?, vec![0; len]);
    let copies = plan.probe;
    let limit = move || {
        let began = Instant::now();
        for _ in 0..copies {
            black_box(block.read(&mut private));
        }
        Ok(per_round(began.elapsed(), copies))
    };
    let outcome = stage.course(plan, Box::new(limit))?.drive(|rounds, laps| {
        let began = laps.begin();
        for _ in 0..rounds {
            black_box(memory.read()?);
            laps.lap();
        }
        Ok(began.elapsed())
    })?;
    report(row(setting, "large-sealed", len).with("copy and read", &outcome))
}
