//! Replays a target's corpus under `cargo test`, on the stack that Rust gives a thread and within a deadline. Each crate
//! with targets takes this file in as a module of its tests.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, thread};

/// One input that takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// The stack of a thread that asked for none: what a listener may run on.
const STACK: usize = 2 << 20;

/// Gives every file of `fuzz/corpus/TARGET` to `body`.
///
/// `seeds` are those of the files that are made here: they must be in the corpus just so, which
/// `MEMIT_WRITE_SEEDS=1 cargo test` sees to.
pub(crate) fn replay(target: &str, seeds: &[(&str, Vec<u8>)], body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    for (name, bytes) in seeds {
        let path = corpus.join(name);
        if env::var_os("MEMIT_WRITE_SEEDS").is_some() {
            fs::create_dir_all(&corpus).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(found == *bytes, "{} is not what the test makes; run it with MEMIT_WRITE_SEEDS=1", path.display());
    }
    let files = files(&corpus);
    assert!(!files.is_empty(), "{} has no seeds", corpus.display());
    let inputs = files.clone();
    let (begin, begun) = mpsc::channel();
    let replay = move || {
        for (index, path) in inputs.iter().enumerate() {
            let input = fs::read(path).unwrap();
            let _ = begin.send(index);
            body(&input);
        }
    };
    let thread = thread::Builder::new().stack_size(STACK).spawn(replay).unwrap();
    let mut last = 0;
    loop {
        match begun.recv_timeout(DEADLINE) {
            Ok(index) => last = index,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{} hangs", files[last].display()),
        }
    }
    assert!(thread.join().is_ok(), "{} fails, see above", files[last].display());
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
