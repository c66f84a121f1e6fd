//! A file system in user space that opens a file and never answers again, so that the last close of it waits for ever.
//!
//! It takes `/dev/fuse` and the right to mount, in a mount namespace of this process's own. Where either is missing there
//! is no such file, and [`IS_MISSING`] is told to the test.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::support::common::say;
use crate::wire::{Record, sys, u32_at, u64_at};

/// What is said where there is no FUSE.
pub const IS_MISSING: &str = "fuse is not available here";

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const INIT: u32 = 26;
const FILE: u64 = 2;

/// A file of it, opened.
pub fn file_that_never_answers() -> Option<OwnedFd> {
    static MOUNTED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let mounted = MOUNTED.get_or_init(|| {
        let mounted = mounted();
        if mounted.is_none() {
            say(IS_MISSING);
        }
        mounted
    });
    openat(CWD, mounted.as_ref()?.join("file"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Mounts it over a directory that is there anyway; nobody else sees that, and it ends with this process.
fn mounted() -> Option<PathBuf> {
    let device = openat(CWD, "/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let place = PathBuf::from("/mnt");
    sys::mount_fuse(&device, &place).then_some(())?;
    thread::spawn(move || serve(File::from(device)));
    Some(place)
}

/// Answers what it takes to open a file, and nothing after.
fn serve(mut device: File) {
    let mut buffer = vec![0; 1 << 17];
    while let Ok(len) = device.read(&mut buffer) {
        let request = &buffer[..len];
        let (operation, unique, node) = (u32_at(request, 4), u64_at(request, 8), u64_at(request, 16));
        let body = match operation {
            // Version 7.31, no capabilities, writes of a page.
            INIT => Record::default().u32(7).u32(31).u32(0).u32(0).u16(1).u16(1).u32(4096).bytes(&[0; 40]),
            LOOKUP => Record::default().u64(FILE).u64(1).bytes(&[0; 24]).bytes(&attributes(FILE)),
            GETATTR => Record::default().bytes(&[0; 16]).bytes(&attributes(node)),
            OPEN => Record::default().u64(1).u32(0).u32(0),
            // A flush, above all.
            _ => continue,
        };
        let answer = Record::default().u32(16 + body.0.len() as u32).u32(0).u64(unique).bytes(&body.0);
        if device.write_all(&answer.0).is_err() {
            return;
        }
    }
}

/// `struct fuse_attr`: the root is a directory, everything else a file.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == FILE { 0o100_644 } else { 0o040_755 };
    Record::default()
        .u64(node)
        .u64(4096)
        .bytes(&[0; 36])
        .bytes(&[0; 8])
        .u32(mode)
        .u32(1)
        .bytes(&[0; 12])
        .u32(4096)
        .u32(0)
        .0
}
