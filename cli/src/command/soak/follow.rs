//! A renderer process of a run: one connection after the other.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use memit::{CallError, IpcRenderer, RunError};

use super::{
    RoleError,
    board::{Board, CONNECTIONS, Slot, Stand, State},
    held::Held,
    parcel::{HELLO, LANES},
    place::{APP, Place, end_with},
    random::{self, Random},
    settings,
    stream::{End, Keys, Stream, Streams, board_name},
    worker::{Worker, is_ordinary},
};
use crate::interrupt;

/// Hidden: `memit soak` starts its renderers with it.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakRenderer {
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    seed: u64,
    /// The renderer's number and its life.
    #[arg(long)]
    name: String,
    #[arg(long)]
    parent: u32,
}

/// How long a main may take to answer a greeting. It may be stopped, or busy.
const GREETING: Duration = Duration::from_secs(60);

impl SoakRenderer {
    pub(crate) fn run(self) -> Result<(), RoleError> {
        end_with(self.parent)?;
        let place = Place::at(self.directory.clone());
        place.tell_panics();
        let leave = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&leave);
        interrupt::on_interrupt(move |_| asked.store(true, Ordering::Relaxed))?;
        let board = Arc::new(Board::create(&place.board(&format!("renderer-{}", self.name)))?);
        let mut at = board.thread(0);
        at.stands(Stand::Connecting);
        let mut random = Random::new(random::of(self.seed, &self.name));
        let (mut connections, mut at_first) = (0, None);
        while !leave.load(Ordering::Relaxed) {
            at.stands(Stand::Connecting);
            let Ok(renderer) = settings(IpcRenderer::builder()).runtime_dir(place.runtime()).connect(APP) else {
                // The main is about to be started once more. That this takes too long is seen from outside.
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            connections += 1;
            board.set(CONNECTIONS, connections);
            at.steps();
            let life = Duration::from_millis(random.between(50, 3_000));
            self.converse(&place, &renderer, connections, life, &leave, &mut at)?;
            at.stands(Stand::Ending);
            drop(renderer);
            match &at_first {
                // The library's thread, and what it holds, has been there since the first connection.
                None => at_first = Some(Held::now()?),
                Some(at_first) => {
                    at_first.comes_back(|what| {
                        place.tell(&format!("renderer {}, between connections: {what}", self.name))
                    })?;
                }
            }
        }
        at.stands(Stand::Done);
        Ok(())
    }

    /// One connection.
    fn converse(
        &self,
        place: &Place,
        renderer: &IpcRenderer,
        connection: u64,
        life: Duration,
        leave: &AtomicBool,
        at: &mut Slot,
    ) -> Result<(), RoleError> {
        let name = format!("{}-{connection}", self.name);
        let keys = Keys::of(self.seed, &name, End::Renderer);
        let board = Arc::new(Board::create(&place.board(&board_name(&name, End::Renderer)))?);
        let streams = Streams::default();
        let id = renderer.sender().peer().id;
        streams.lock().insert(id, Stream::new(place, &name, End::Renderer, keys, Arc::clone(&board)));
        streams.listen(renderer, place);

        at.stands(Stand::Greeting);
        let welcome = match renderer.send_sync_timeout(HELLO, &name, GREETING) {
            Ok(welcome) => Some(welcome.into_owned()),
            Err(CallError::Disconnected(reason)) if is_ordinary(&reason) => None,
            Err(error) => {
                place.tell(&format!("stream {name}: the greeting: {error}"));
                None
            }
        };
        at.steps();
        let Some(welcome) = welcome else {
            close(&streams);
            return Ok(());
        };
        if let Some(stream) = streams.lock().get_mut(&id) {
            stream.news_from(welcome.news);
        }

        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::new();
        for lane in 1..LANES as u64 {
            let worker = Worker {
                place: place.clone(),
                name: name.clone(),
                sender: renderer.sender().clone(),
                board: Arc::clone(&board),
                keys,
                lane,
                stop: Arc::clone(&stop),
            };
            workers.push(worker.start()?);
        }
        at.stands(Stand::Dispatching);
        let begin = Instant::now();
        let mut shown = begin;
        loop {
            let over = leave.load(Ordering::Relaxed) || begin.elapsed() > life;
            if over {
                stop.store(true, Ordering::Relaxed);
                if workers.iter().all(|worker| worker.is_finished()) {
                    break;
                }
            }
            match renderer.run_once(Duration::from_millis(20)) {
                Ok(_) => {}
                Err(RunError::Disconnected(reason)) => {
                    if !is_ordinary(&reason) {
                        place.tell(&format!("stream {name}: the renderer lost the main: {reason}"));
                    }
                    at.stands(Stand::Joining);
                    for worker in workers {
                        // A panic there has been printed, and ends the process with a code of its own.
                        worker.join().map_err(|_| RoleError::Panicked)?;
                    }
                    at.steps();
                    at.stands(Stand::Reporting);
                    for (_, mut stream) in streams.lock().drain() {
                        stream.ended(Some(&welcome.board));
                    }
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            if shown.elapsed() > Duration::from_millis(50) {
                shown = Instant::now();
                at.steps();
                streams.came_round();
            }
        }
        for worker in workers {
            worker.join().map_err(|_| RoleError::Panicked)?;
        }
        at.stands(Stand::Ending);
        board.rest(State::AtRest);
        renderer.shutdown();
        close(&streams);
        Ok(())
    }
}

fn close(streams: &Streams) {
    for (_, mut stream) in streams.lock().drain() {
        stream.close();
    }
}
