//! What a peer sends right before its end is heard, wherever the dispatching thread is at that moment.
//!
//! All threads of this process share one processor, so that the dispatching thread, which polls all the time, is
//! interrupted at any instruction, and meanwhile all of it happens: the message, the end, and the news of the end. No
//! other test may be in this file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{sync::mpsc, thread};

use memit::Channel;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use support::{Log, Rig, within_deadline};

const NOTE: Channel<u32> = Channel::new("note");
/// Where the end is asked for after the ring was looked at, about one connection in three hundred loses its message.
const CONNECTIONS: u32 = 2_000;

#[test]
fn what_a_peer_sends_right_before_its_end_is_heard() {
    within_deadline(|| {
        share_one_processor();
        let (rig, heard, left) = (Rig::new(), Log::<u32>::default(), Log::<u64>::default());
        let (notes, ends) = (heard.clone(), left.clone());
        rig.main.on(NOTE, move |_, number| notes.push(number.to_native()));
        rig.main.on_disconnect(move |peer, _| ends.push(peer.id));
        let (go, going) = mpsc::channel::<memit::IpcRenderer>();
        let sender = thread::spawn(move || {
            for (number, renderer) in (0..).zip(going) {
                renderer.send(NOTE, &number).unwrap();
                renderer.shutdown();
            }
        });
        for number in 0..CONNECTIONS {
            let renderer = rig.renderer();
            rig.until(|| rig.main.renderers().len() == 1);
            go.send(renderer).unwrap();
            while left.len() == 0 {
                rig.main.poll().unwrap();
            }
            left.take();
            assert_eq!(heard.take(), [number], "connection {number} ended, and its message was not heard");
        }
        drop(go);
        sender.join().unwrap();
    });
}

/// Of this thread and all that are started from now on.
fn share_one_processor() {
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).unwrap();
}
