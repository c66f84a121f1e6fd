//! A runtime directory that is full, that cannot be written, or that is not what it should be.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use memit_engine::{BindError, ConnectError, Port, RuntimeDirError};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::child::{Short, command, run};
use crate::common::within_deadline;
use crate::places::{Renderer, main_that_obeys, settings};
use crate::seccomp::{Action, Whom, all, install, only};

pub fn play(role: &str, dir: &Path) {
    match role {
        "few-files" => few_files(dir),
        "no-blocks" => no_blocks(dir),
        "main" => main_that_obeys(dir, |_| {}),
        "read-only" => read_only(dir),
        "refused" => refused(dir),
        "link" => {
            fs::create_dir(dir.join("real")).unwrap();
            std::os::unix::fs::symlink("real", dir.join("run")).unwrap();
            let expected = "is not a directory, or is a symbolic link; remove it, or choose another with";
            is_refused(dir, expected);
        }
        "foreign" => {
            // Root can make a directory of somebody else's; for everyone else, `/` is one.
            let path = if rustix::process::geteuid().is_root() { dir.join("run") } else { "/".into() };
            if rustix::process::geteuid().is_root() {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
                std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            }
            let mut config = settings(dir);
            config.runtime_dir = Some(path);
            let text = Port::bind("app", config).unwrap_err().to_string();
            let us = rustix::process::geteuid().as_raw();
            assert!(
                text.contains("belongs to user") && text.contains(&format!("expected user {us}; choose another")),
                "{text}"
            );
        }
        unknown => panic!("unknown role {unknown}"),
    }
}

fn bind(dir: &Path) -> Result<Port, BindError> {
    Port::bind("app", settings(dir))
}

/// Both sides say so.
fn is_refused(dir: &Path, expected: &str) {
    let error = bind(dir).unwrap_err();
    assert!(matches!(error, BindError::RuntimeDir(_)) && error.to_string().contains(expected), "{error}");
    let error = Port::connect("app", settings(dir)).unwrap_err();
    assert!(matches!(error, ConnectError::RuntimeDir(_)) && error.to_string().contains(expected), "{error}");
}

/// A tmpfs, or with MS_BIND another place for what is at `from`.
#[allow(unsafe_code)]
fn mount(from: &Path, at: &Path, flags: libc::c_ulong, options: &CStr) -> std::io::Result<()> {
    let [from, at] = [from, at].map(|path| CString::new(path.as_os_str().as_encoded_bytes()).unwrap());
    // SAFETY: all four are strings, which the kernel copies.
    let mounted = unsafe { libc::mount(from.as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), flags, options.as_ptr().cast()) };
    if mounted == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A file system of our own at `dir`, with so many files and bytes: its root is one of the files.
fn mount_small(dir: &Path, files: u32, bytes: u32) {
    let options = CString::new(format!("nr_inodes={files},size={bytes}")).unwrap();
    mount(dir, dir, 0, &options).unwrap();
}

/// What bind cannot do in the directory, and that it says what to do.
#[track_caller]
fn cannot(error: &BindError, expected: &str, dir: &Path, advice: &str) {
    let BindError::RuntimeDir(RuntimeDirError::Io { action, .. }) = error else { panic!("{error}") };
    assert_eq!(*action, expected);
    let text = error.to_string();
    let begin = format!("cannot {action} the runtime directory {}: ", dir.join("run").display());
    assert!(text.starts_with(&begin) && text.ends_with(advice), "{text}");
}

const MAKE_ROOM: &str = "; make room there, or choose another with MEMIT_RUNTIME_DIR";

/// There is room for one file more each time.
fn few_files(dir: &Path) {
    for (files, action) in [(1, "make"), (2, "lock the name in"), (3, "bind the socket in")] {
        mount_small(dir, files, 1 << 20);
        for _ in 0..2 {
            cannot(&bind(dir).unwrap_err(), action, dir, MAKE_ROOM);
        }
        let left = fs::read_dir(dir.join("run")).map_or(0, Iterator::count);
        assert!(left <= 1, "besides the lock file nothing is left");
    }
    mount_small(dir, 4, 1 << 20);
    let main = bind(dir).unwrap();
    // Full again, which those who bind notice, and neither main nor who connects.
    let error = Port::bind("other", settings(dir)).unwrap_err();
    cannot(&error, "lock the name in", dir, MAKE_ROOM);
    drop(main);
    let mut main = Short::start("runtime-dir main", dir);
    main.expect("bound");
    let mut renderers = [(); 3].map(|()| Renderer::connect(dir));
    renderers.iter_mut().for_each(Renderer::is_served);
    main.end();
}

/// Files can be made, and nothing can be written to them.
fn no_blocks(dir: &Path) {
    mount_small(dir, 100, 4096);
    fs::write(dir.join("filler"), [1; 4096]).unwrap();
    assert!(fs::write(dir.join("more"), [1]).is_err());
    let main = bind(dir).unwrap();
    // The lock file does not tell who has the name.
    let text = bind(dir).unwrap_err().to_string();
    assert_eq!(text, "the name app is taken; choose another, or end that process");
    drop(Port::connect("app", settings(dir)).unwrap());
    drop(main);
    bind(dir).unwrap();
}

/// The directory is read-only for those who come to it by another way than the main that is there.
fn read_only(dir: &Path) {
    let (writable, readable) = (dir.join("writable"), dir.join("readable"));
    for path in [&writable, &readable] {
        fs::create_dir(path).unwrap();
    }
    mount_small(&writable, 100, 1 << 20);
    mount(&writable, &readable, libc::MS_BIND, c"").unwrap();
    mount(&writable, &readable, libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, c"").unwrap();
    const READ_ONLY: &str = "; choose one that can be written with MEMIT_RUNTIME_DIR";
    cannot(&bind(&readable).unwrap_err(), "make", &readable, READ_ONLY);
    let mut main = Short::start("runtime-dir main", &writable);
    main.expect("bound");
    let mut staying = Renderer::connect(&writable);
    cannot(&bind(&readable).unwrap_err(), "lock the name in", &readable, READ_ONLY);
    Renderer::connect(&readable).is_served();
    staying.is_served();
    main.end();
}

/// As if the directory were full, call by call, and as if it were on a file system without locks.
fn refused(dir: &Path) {
    let create = libc::O_CREAT.unsigned_abs();
    let no_space = Action::Fail(libc::ENOSPC);
    // One more each time, since a filter stays.
    let rename = [libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2].map(|number| all(number, no_space));
    install(Whom::EveryThread, &rename, Action::Allow);
    cannot(&bind(dir).unwrap_err(), "bind the socket in", dir, MAKE_ROOM);
    let left: Vec<_> = fs::read_dir(dir.join("run")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["app.lock"], "a socket on its way to its name stays behind");
    install(Whom::EveryThread, &[all(libc::SYS_bind, no_space)], Action::Allow);
    cannot(&bind(dir).unwrap_err(), "bind the socket in", dir, MAKE_ROOM);
    install(Whom::EveryThread, &[all(libc::SYS_flock, Action::Fail(libc::ENOLCK))], Action::Allow);
    cannot(
        &bind(dir).unwrap_err(),
        "lock the name in",
        dir,
        "; make it with mode 0700, or choose another with MEMIT_RUNTIME_DIR",
    );
    install(Whom::EveryThread, &[only(libc::SYS_openat, 2, create, create, no_space)], Action::Allow);
    cannot(&bind(dir).unwrap_err(), "lock the name in", dir, MAKE_ROOM);
    fs::remove_dir_all(dir.join("run")).unwrap();
    let mkdir = [all(libc::SYS_mkdir, no_space), all(libc::SYS_mkdirat, no_space)];
    install(Whom::EveryThread, &mkdir, Action::Allow);
    cannot(&bind(dir).unwrap_err(), "make", dir, MAKE_ROOM);
}

/// A child with mounts of its own, as the root of a user namespace of its own unless this is root. `None`, with a word about it,
/// where the machine allows neither.
#[allow(unsafe_code)]
fn with_own_mounts(role: &str, dir: &Path) -> Option<Short> {
    let user = rustix::process::geteuid();
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {} 1", user.as_raw())),
        ("/proc/self/gid_map", format!("0 {} 1", rustix::process::getegid().as_raw())),
    ]
    .map(|(path, text)| (CString::new(path).unwrap(), text));
    let namespaces = if user.is_root() { UnshareFlags::NEWNS } else { UnshareFlags::NEWNS | UnshareFlags::NEWUSER };
    let prepare = move || {
        // SAFETY: a forked child is one thread, and shares no files with anybody whom that could surprise.
        unsafe { unshare_unsafe(namespaces) }?;
        if namespaces.contains(UnshareFlags::NEWUSER) {
            for (path, text) in &maps {
                let file = rustix::fs::open(path, rustix::fs::OFlags::WRONLY, rustix::fs::Mode::empty())?;
                rustix::io::write(&file, text.as_bytes())?;
            }
        }
        // What is mounted here is not to show elsewhere.
        // SAFETY: the path is a string, and nothing else is read.
        let changed = unsafe {
            libc::mount(c"".as_ptr(), c"/".as_ptr(), ptr::null(), libc::MS_PRIVATE | libc::MS_REC, ptr::null())
        };
        if changed != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    let mut command: Command = command(role, dir);
    // SAFETY: makes system calls only, with what was prepared before.
    unsafe { command.pre_exec(prepare) };
    match Short::spawn(role, command) {
        Ok(child) => Some(child),
        Err(error) => {
            println!("not run: this machine grants no mounts of our own ({error})");
            None
        }
    }
}

fn run_with_own_mounts(role: &'static str) {
    within_deadline(move || {
        let dir = tempfile::tempdir().unwrap();
        if let Some(child) = with_own_mounts(role, dir.path()) {
            child.ends();
        }
    });
}

#[test]
fn bind_in_a_full_directory_says_what_it_could_not_make_and_leaves_nothing() {
    run_with_own_mounts("runtime-dir few-files");
}

#[test]
fn a_name_can_be_bound_where_its_holder_cannot_be_noted() {
    run_with_own_mounts("runtime-dir no-blocks");
}

#[test]
fn a_directory_that_is_read_only_can_be_connected_in_and_not_bound_in() {
    run_with_own_mounts("runtime-dir read-only");
}

#[test]
fn bind_that_is_refused_a_file_says_which_in_every_case() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        run("runtime-dir refused", dir.path());
    });
}

#[test]
fn a_directory_that_is_a_link_or_somebody_elses_is_refused_with_what_to_do() {
    for role in ["runtime-dir link", "runtime-dir foreign"] {
        within_deadline(move || {
            let dir = tempfile::tempdir().unwrap();
            run(role, dir.path());
        });
    }
}
