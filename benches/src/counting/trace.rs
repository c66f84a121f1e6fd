//! Counting system calls without privileges: a third process traces all threads of the two for a while, and adds one to
//! a shared word each time that one of them enters the kernel. A thread that makes no system call is not held up at
//! all.
//!
//! Where tracing is forbidden, as in some sandboxes, system calls cannot be counted.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{fs, io, ptr, thread};

use libc::{c_int, pid_t};

use crate::Result;
use crate::board;
use crate::machine::unpinned;
use crate::setting::Setting;
use crate::shared::Shared;

/// How long the tracer may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process that counts, until it is dropped.
#[derive(Debug)]
pub struct Tracer(Child);

impl Tracer {
    /// Counts the system calls of `pids` in the board's word for them. `None` if that cannot be done here.
    pub fn start(setting: &Setting, shared: &Shared, pids: [u32; 2]) -> Result<Option<Self>> {
        let state = shared.word(board::TRACER);
        state.store(board::TRACER_STARTS, Ordering::Relaxed);
        allow_tracing_by_children();
        let mut command = setting.helper("trace");
        command
            .args([shared.descriptor().to_string(), std::process::id().to_string()])
            .args(pids.map(|pid| pid.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let tracer = Self(unpinned(&setting.allowed, || command.spawn())??);
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            // SYNC tracer-begins: pairs with `follow`, so that no count of an earlier tracer is read.
            match state.load(Ordering::Acquire) {
                board::TRACER_COUNTS => return Ok(Some(tracer)),
                board::TRACER_FAILED => return Ok(None),
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(None)
    }

    /// Whether it still counts, and has missed nothing.
    pub fn counts(&self, shared: &Shared) -> bool {
        shared.word(board::TRACER).load(Ordering::Relaxed) == board::TRACER_COUNTS
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // With its tracer gone, a process goes on as if it never had one.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets the processes that this one starts trace it. Some systems do not, though they are of the same user; where that
/// is no rule, it fails, and need not succeed.
fn allow_tracing_by_children() {
    // SAFETY: takes a number only.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::from(std::process::id()), 0, 0, 0) };
}

/// Lets the processes that the parent starts trace this one, as [`allow_tracing_by_children`] does.
pub(crate) fn allow_tracing_by_siblings() {
    let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get().unsigned_abs());
    // SAFETY: takes a number only.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::from(parent), 0, 0, 0) };
}

/// What the tracer process does: it counts until it is killed, or nobody is left to trace.
pub(crate) fn run(shared: &Shared, pids: &[pid_t]) -> Result<()> {
    let state = shared.word(board::TRACER);
    if seize_all(pids).and_then(|threads| follow(shared, threads)).is_err() {
        state.store(board::TRACER_FAILED, Ordering::Relaxed);
    }
    Ok(())
}

/// The threads that are traced, as long as there is something to know of them.
#[derive(Debug, Default)]
struct Threads {
    /// They have not stopped yet.
    interrupted: HashSet<pid_t>,
    /// They slept in a system call, which they will make again: that is the tracer's doing, and does not count.
    asleep: HashSet<pid_t>,
}

/// Traces all threads of the processes and interrupts each.
fn seize_all(pids: &[pid_t]) -> io::Result<Threads> {
    let (mut seen, mut threads) = (HashSet::new(), Threads::default());
    for pid in pids {
        // Until a look finds no thread that is new.
        let mut more = true;
        while std::mem::take(&mut more) {
            for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
                let thread = entry?.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
                if seen.insert(thread) {
                    more = true;
                    seize(*pid, thread, &mut threads)?;
                }
            }
        }
    }
    Ok(threads)
}

fn seize(pid: pid_t, thread: pid_t, threads: &mut Threads) -> io::Result<()> {
    let was_asleep = sleeps(pid, thread);
    let seized = trace(libc::PTRACE_SEIZE, thread, libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE);
    match seized.and_then(|()| trace(libc::PTRACE_INTERRUPT, thread, 0)) {
        Ok(()) => {
            threads.interrupted.insert(thread);
            if was_asleep {
                threads.asleep.insert(thread);
            }
            Ok(())
        }
        // It has just ended, or is traced because the one that started it is.
        Err(_) if !is_there(pid, thread) || is_traced(pid, thread) => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_there(pid: pid_t, thread: pid_t) -> bool {
    fs::exists(format!("/proc/{pid}/task/{thread}")).unwrap_or(false)
}

/// Whether this process traces the thread.
fn is_traced(pid: pid_t, thread: pid_t) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() == std::process::id().to_string())
}

/// Whether a thread sleeps. One that has just ended does not.
fn sleeps(pid: pid_t, thread: pid_t) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('S'))
}

/// Lets all threads go on from system call to system call, and counts those.
fn follow(shared: &Shared, mut threads: Threads) -> io::Result<()> {
    let (state, calls) = (shared.word(board::TRACER), shared.word(board::CALLS));
    loop {
        let mut status = 0;
        // SAFETY: writes the status, and nothing else.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if thread < 0 {
            return match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ECHILD) => Ok(()),
                error => Err(error),
            };
        }
        if libc::WIFSTOPPED(status) {
            let signal = libc::WSTOPSIG(status);
            let is_call = signal == libc::SIGTRAP | 0x80;
            if is_call && enters(thread)? && !threads.asleep.remove(&thread) {
                // Who reads it has heard, through the kernel or a message, from a thread that goes on only after this.
                calls.fetch_add(1, Ordering::Relaxed);
            }
            // What is no event of tracing is a signal, which the thread is to have.
            let is_event = is_call || status >> 16 != 0;
            let _gone_meanwhile = trace(libc::PTRACE_SYSCALL, thread, if is_event { 0 } else { signal });
        }
        threads.interrupted.remove(&thread);
        if threads.interrupted.is_empty() && state.load(Ordering::Relaxed) == board::TRACER_STARTS {
            // SYNC tracer-begins: pairs with `Tracer::start`.
            state.store(board::TRACER_COUNTS, Ordering::Release);
        }
    }
}

/// Whether the thread, which has stopped at a system call, is about to make it.
fn enters(thread: pid_t) -> io::Result<bool> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    // SAFETY: the kernel writes at most as many bytes as it is told there are.
    let written = unsafe {
        libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size_of::<libc::ptrace_syscall_info>(), info.as_mut_ptr())
    };
    if written < 0 {
        return match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            error => Err(error),
        };
    }
    // SAFETY: all its parts are numbers, which zeros are.
    let info = unsafe { info.assume_init() };
    Ok(info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
}

fn trace(request: libc::c_uint, thread: pid_t, number: c_int) -> io::Result<()> {
    let number = usize::try_from(number).map_err(io::Error::other)?;
    // SAFETY: none of the requests that are made with this touches memory of this process.
    if unsafe { libc::ptrace(request, thread, ptr::null_mut::<u8>(), number) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
