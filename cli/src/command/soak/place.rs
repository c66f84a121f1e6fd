//! The directory of a run, and who removes it: a process that outlives all others of the run, whatever ends them.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions, Permissions},
    io::{self, BufRead, BufReader, PipeWriter, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, PermissionsExt},
        process::CommandExt,
    },
    panic,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The name under which the main of a run listens.
pub(crate) const APP: &str = "soak";

/// What no path contains.
const PATH_END: u8 = 0;

/// The files of a run.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the main's socket is.
    pub(crate) fn runtime(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Where processes write down what they have done.
    pub(crate) fn boards(&self) -> PathBuf {
        self.0.join("boards")
    }

    pub(crate) fn board(&self, name: &str) -> PathBuf {
        self.boards().join(name)
    }

    fn faults(&self) -> PathBuf {
        self.0.join("faults")
    }

    /// Makes the directories.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(self.runtime())?;
        fs::DirBuilder::new().mode(0o700).create(self.boards())
    }

    /// Adds a line to what went wrong, from any process.
    pub(crate) fn tell(&self, fault: &str) {
        let line = format!("{}\n", fault.replace('\n', " "));
        let file = OpenOptions::new().append(true).create(true).open(self.faults());
        if file.and_then(|mut file| file.write_all(line.as_bytes())).is_err() {
            eprintln!("memit: {line}");
        }
    }

    /// A panic of this process, in whatever thread, is told as what went wrong.
    pub(crate) fn tell_panics(&self) {
        let place = self.clone();
        panic::set_hook(Box::new(move |panic| place.tell(&format!("a panic: {panic}"))));
    }

    /// What went wrong so far.
    pub(crate) fn told(&self) -> Vec<String> {
        fs::read_to_string(self.faults()).unwrap_or_default().lines().map(Into::into).collect()
    }
}

/// The process that makes the directory, and that removes it when nobody holds the other end of its standard input any
/// more: not the process that supervises the run, and none of its children, which have that end as their standard output.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
    held: PipeWriter,
}

impl Janitor {
    pub(crate) fn start() -> io::Result<(Self, Place)> {
        let (reader, held) = io::pipe()?;
        let mut child = memit("soak-janitor").stdin(reader).stdout(Stdio::piped()).spawn()?;
        let mut path = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_until(PATH_END, &mut path)?;
        }
        if path.pop() != Some(PATH_END) {
            child.wait()?;
            return Err(io::Error::other("no directory could be made; set TMPDIR to one that you may write to"));
        }
        Ok((Self { child, held }, Place::at(OsString::from_vec(path).into())))
    }

    /// What keeps the directory while a process has it.
    pub(crate) fn hold(&self) -> io::Result<PipeWriter> {
        self.held.try_clone()
    }

    /// Returns when the directory is gone.
    pub(crate) fn finish(self) -> io::Result<()> {
        let Self { mut child, held } = self;
        drop(held);
        match child.wait()? {
            status if status.success() => Ok(()),
            status => Err(io::Error::other(format!("the directory of the run could not be removed: {status}"))),
        }
    }
}

/// Hidden: makes the directory of a run, prints its path, and removes it once all processes of the run have ended.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakJanitor {}

impl SoakJanitor {
    pub(crate) fn run(self) -> io::Result<()> {
        let directory =
            tempfile::Builder::new().prefix("memit-soak-").permissions(Permissions::from_mode(0o700)).tempdir()?;
        let mut stdout = io::stdout().lock();
        stdout.write_all(directory.path().as_os_str().as_bytes())?;
        stdout.write_all(&[PATH_END])?;
        stdout.flush()?;
        io::stdin().lock().read_to_end(&mut Vec::new())?;
        directory.close()
    }
}

/// This binary once more, with a hidden command. Ctrl-C at a terminal does not reach it.
pub(crate) fn memit(command: &str) -> Command {
    // Not the path of the binary, which may have been replaced since this process began.
    let mut process = Command::new("/proc/self/exe");
    process.arg0("memit").arg(command).process_group(0);
    process
}

/// Ends this process with the thread that started it, which is to be `parent`'s main thread.
pub(crate) fn end_with(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that.
    if getppid().is_none_or(|found| found.as_raw_pid().cast_unsigned() != parent) {
        return Err(io::Error::other("the process that started this one is gone"));
    }
    Ok(())
}
