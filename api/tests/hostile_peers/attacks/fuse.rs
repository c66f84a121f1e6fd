//! A file system in user space that opens a file and then answers neither a flush nor a read, so that a close of the file
//! waits for ever, and so does whoever touches a page of it, the kernel included.
//!
//! It is served by a process of its own, in a mount namespace of its own, and takes `/dev/fuse` and the right to mount.
//! Where either is missing there is no such file, and [`IS_MISSING`] is told to the test. What this attacker itself closes
//! is answered: it must not come to wait for what it made.

use std::fs::{self, File};
use std::io::{Read, Write, stdin};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::support::common::say;
use crate::wire::{Record, sys, u32_at, u64_at};

/// What is said where there is no FUSE.
pub const IS_MISSING: &str = "fuse is not available here";
const IS_MOUNTED: &str = "fuse is mounted";

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const FILE: u64 = 2;
const PLACE: &str = "/mnt";

/// A file of it, opened.
pub fn file_that_never_answers() -> Option<OwnedFd> {
    static MOUNTED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let mounted = MOUNTED.get_or_init(|| {
        let mounted = started();
        if mounted.is_none() {
            say(IS_MISSING);
        }
        mounted
    });
    openat(CWD, mounted.as_ref()?.join("file"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Starts the process that serves it; where its root is to be found from here.
fn started() -> Option<PathBuf> {
    let mut server: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
        .env("MEMIT_TEST_ROLE", format!("fuse {}", std::process::id()))
        // Its end is that of this process.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = server.stdout.take().unwrap();
    let (mut text, mut chunk) = (String::new(), [0; 256]);
    while !text.contains("\n") || !text.contains("fuse is ") {
        let len = said.read(&mut chunk).unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk[..len]));
        if len == 0 {
            break;
        }
    }
    let root = format!("/proc/{}/root{PLACE}", server.id());
    // Its input stays open until this process ends.
    std::mem::forget((server, said));
    text.contains(IS_MOUNTED).then(|| PathBuf::from(root))
}

/// Mounts it over a directory that is there anyway, where nobody else sees that, and serves it for the process `client`.
pub fn serve(client: &str) {
    let device = openat(CWD, "/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok();
    let Some(device) = device.filter(|device| sys::mount_fuse(device, PLACE.as_ref())) else {
        tell(IS_MISSING);
        return;
    };
    tell(IS_MOUNTED);
    // When the attacker ends, however it does, this process ends, and with it every wait for an answer.
    std::thread::spawn(|| {
        let _ = stdin().read(&mut [0]);
        std::process::exit(0);
    });
    answer(File::from(device), client);
}

/// Tells the attacker, who may be gone already.
fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Answers what it takes to open a file, and the flushes of `client`, no others.
fn answer(mut device: File, client: &str) {
    let mut buffer = vec![0; 1 << 17];
    while let Ok(len) = device.read(&mut buffer) {
        let request = &buffer[..len];
        let (operation, unique, node, thread) =
            (u32_at(request, 4), u64_at(request, 8), u64_at(request, 16), u32_at(request, 32));
        let body = match operation {
            // Version 7.31, no capabilities, writes of a page.
            INIT => Record::default().u32(7).u32(31).u32(0).u32(0).u16(1).u16(1).u32(4096).bytes(&[0; 40]),
            LOOKUP => Record::default().u64(FILE).u64(1).bytes(&[0; 24]).bytes(&attributes(FILE)),
            GETATTR => Record::default().bytes(&[0; 16]).bytes(&attributes(node)),
            OPEN => Record::default().u64(1).u32(0).u32(0),
            FLUSH if fs::exists(format!("/proc/{client}/task/{thread}")).unwrap_or(false) => Record::default(),
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
    // Inode, size, times; mode, links, owners, device; size of a block, flags.
    let times = Record::default().u64(node).u64(4096).bytes(&[0; 44]);
    times.u32(mode).u32(1).bytes(&[0; 12]).u32(4096).u32(0).0
}
