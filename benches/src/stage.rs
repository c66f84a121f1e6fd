//! A main in this process and a peer process that is connected to it: what a row is measured on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use memit::{Builder, IpcMain, Sender, WaitStrategy};

use crate::Result;
use crate::board;
use crate::counting::Counters;
use crate::course::{Course, Limit, Plan};
use crate::machine::unpinned;
use crate::probe;
use crate::process::{Directory, Process};
use crate::setting::Setting;
use crate::shared::Shared;

/// The names of the mains: the peer's first connection is to the one, in which it hears orders.
pub const APP: &str = "bench";
/// See [`APP`]; only some scenarios have it.
pub const SECOND_APP: &str = "bench-2";

/// The ways to wait, and their names.
pub const WAITS: [(&str, WaitStrategy); 3] =
    [("spin", WaitStrategy::Spin), ("park", WaitStrategy::Park), ("adaptive", WaitStrategy::Adaptive)];

/// The name of a way to wait.
#[must_use]
pub fn wait_name(wait: WaitStrategy) -> &'static str {
    WAITS.iter().find(|(_, found)| *found == wait).map_or("?", |(name, _)| name)
}

/// How long the peer may take for each connection, and for the first.
const PATIENCE: Duration = Duration::from_millis(100);
const FIRST_PATIENCE: Duration = Duration::from_secs(30);

/// Who takes part.
pub struct Cast<'c> {
    /// What the peer does: one of the scenarios' roles.
    pub role: &'c str,
    /// How both sides wait.
    pub wait: WaitStrategy,
    /// What the peer is passed.
    pub numbers: &'c [u64],
    /// Bytes that are shared besides the board.
    pub shared: usize,
    /// Connections to the main, and to a second one, if there is to be one.
    pub connections: [usize; 2],
    /// Further settings of the mains.
    pub configure: fn(Builder<IpcMain>) -> Builder<IpcMain>,
}

impl<'c> Cast<'c> {
    /// One connection, and nothing besides.
    pub fn new(role: &'c str, wait: WaitStrategy) -> Self {
        Self { role, wait, numbers: &[], shared: 0, connections: [1, 0], configure: |builder| builder }
    }
}

/// The stage. What it has goes in the order in which it is declared: the peer first.
pub struct Stage {
    process: Process,
    /// The way to the peer's first connection.
    pub peer: Sender,
    /// The main that it is connected to.
    pub main: IpcMain,
    /// The second main, if there is one.
    pub second: Option<IpcMain>,
    /// What both processes share.
    pub shared: Arc<Shared>,
    /// How it is measured.
    pub setting: Setting,
}

impl Stage {
    /// Sets it up.
    pub fn set(setting: &Setting, cast: &Cast<'_>) -> Result<Self> {
        let directory = Directory::new()?;
        let shared = Arc::new(Shared::create((board::LEN + cast.shared).next_multiple_of(4096))?);
        let bind = |app| {
            let builder = IpcMain::builder().runtime_dir(directory.path()).wait(cast.wait);
            let builder = builder.max_connections(1100).max_connections_per_uid(1100);
            (cast.configure)(builder).bind(app)
        };
        // The library's thread is nobody that is measured, and may run where there is room.
        let main = unpinned(&setting.allowed, || bind(APP))??;
        let second = (cast.connections[1] > 0).then(|| bind(SECOND_APP)).transpose()?;

        let process = start(setting, &shared, &directory, cast.role, cast.wait, cast.numbers)?;
        for (main, connections) in [&main].into_iter().chain(&second).zip(cast.connections) {
            connected(main, connections)?;
        }
        // Everybody has connected, and so nothing is left of it, whatever ends this process from here on.
        drop(directory);
        let peer = first(&main)?;
        Ok(Self { process, peer, main, second, shared, setting: setting.clone() })
    }

    /// What counts on it.
    pub fn counters(&self) -> Result<Counters> {
        Counters::new(&self.setting, Arc::clone(&self.shared), self.peer.clone(), self.process.pid())
    }

    /// A row on it.
    pub fn course(&self, plan: Plan, limit: Limit) -> Result<Course> {
        Course::new(plan, limit, Box::new(self.counters()?))
    }

    /// A round trip of the bare cache line, to compare with.
    pub fn line(&self, plan: &Plan) -> Limit {
        probe::line(Arc::clone(&self.shared), self.peer.clone(), plan.probe)
    }

    /// A round trip of the raw futex, to compare with.
    pub fn futex(&self, plan: &Plan) -> Limit {
        let rounds = u32::try_from(plan.probe).unwrap_or(u32::MAX);
        probe::futex(Arc::clone(&self.shared), self.peer.clone(), rounds)
    }
}

/// The way to the connection that was the first.
pub fn first(main: &IpcMain) -> Result<Sender> {
    let first = main.renderers().into_iter().min_by_key(|renderer| renderer.peer().id);
    first.ok_or_else(|| "the peer's first connection is gone".into())
}

/// Starts a peer process, which is passed `numbers`.
pub(crate) fn start(
    setting: &Setting,
    shared: &Shared,
    directory: &Directory,
    role: &str,
    wait: WaitStrategy,
    numbers: &[u64],
) -> Result<Process> {
    let mut command = setting.helper("peer");
    command
        .args([shared.descriptor().to_string(), std::process::id().to_string()])
        .args([role, wait_name(wait)])
        .arg(directory.path())
        .args(numbers.iter().map(ToString::to_string));
    Process::start(setting, command)
}

/// Dispatches until there are so many connections.
pub(crate) fn connected(main: &IpcMain, connections: usize) -> Result<()> {
    let began = Instant::now();
    let patience = FIRST_PATIENCE + PATIENCE * u32::try_from(connections)?;
    loop {
        let found = main.renderers().len();
        if found >= connections {
            return Ok(());
        }
        if began.elapsed() > patience {
            return Err(format!("{found} of {connections} connections were made within {patience:?}").into());
        }
        main.run_once(Duration::from_millis(10))?;
    }
}
