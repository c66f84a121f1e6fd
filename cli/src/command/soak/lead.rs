//! The main of a run.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use memit::{IpcMain, SendError};

use super::{
    RoleError,
    board::{Board, CONNECTIONS, NEWS, Stand, State},
    held::Held,
    parcel::{HELLO, Label, MISSED, NEWS as NEWS_CHANNEL, ParcelRef, Welcome, size},
    place::{APP, Place, end_with},
    random::Random,
    settings,
    stream::{End, Keys, Stream, Streams, board_name, news_key},
    worker::{Worker, is_ordinary},
};
use crate::interrupt;

/// Hidden: `memit soak` starts its main with it.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakMain {
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    life: u64,
    #[arg(long)]
    parent: u32,
}

/// Threads that send to renderers, by the renderer's number.
type Workers = Arc<Mutex<HashMap<u64, JoinHandle<()>>>>;

impl SoakMain {
    pub(crate) fn run(self) -> Result<(), RoleError> {
        end_with(self.parent)?;
        let place = Place::at(self.directory.clone());
        place.tell_panics();
        let leave = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&leave);
        interrupt::on_interrupt(move |_| asked.store(true, Ordering::Relaxed))?;

        let board_name = format!("main-{}", self.life);
        let board = Arc::new(Board::create(&place.board(&board_name))?);
        let mut at = board.thread(0);
        at.stands(Stand::Starting);
        let main = settings(IpcMain::builder()).runtime_dir(place.runtime()).bind(APP)?;
        let at_first = Held::now()?;

        let (streams, workers) = (Streams::default(), Workers::default());
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        streams.listen(&main, &place);
        self.greet(&main, &place, &board_name, &streams, &workers, &stop, &begun);
        listen_for_ends(&main, &place, &board, &streams);
        let broadcaster = {
            let (main, place, board, stop) = (main.clone(), place.clone(), Arc::clone(&board), Arc::clone(&stop));
            let seed = self.seed;
            thread::Builder::new()
                .name("broadcasts".into())
                .spawn(move || broadcast(&main, &place, &board, seed, &stop, &begun))?
        };

        at.stands(Stand::Dispatching);
        let mut shown = Instant::now();
        let mut come_round = |at: &mut super::board::Slot| -> Result<(), RoleError> {
            main.run_once(Duration::from_millis(50))?;
            if shown.elapsed() > Duration::from_millis(50) {
                shown = Instant::now();
                at.steps();
                streams.came_round();
                let mut workers = workers.lock().unwrap_or_else(PoisonError::into_inner);
                workers.retain(|_, worker| !worker.is_finished());
            }
            Ok(())
        };
        while !leave.load(Ordering::Relaxed) {
            come_round(&mut at)?;
        }

        // Nothing is sent while the connections close, so that what was sent can be counted.
        stop.store(true, Ordering::Relaxed);
        at.stands(Stand::Joining);
        let is_working =
            || !broadcaster.is_finished() || !workers.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        while is_working() {
            come_round(&mut at)?;
        }
        at.stands(Stand::Ending);
        for stream in streams.lock().values() {
            stream.board().rest(State::AtRest);
        }
        main.shutdown();
        for (_, mut stream) in streams.lock().drain() {
            stream.close();
        }
        drop(broadcaster);
        drop(main);
        at_first.comes_back(|what| place.tell(&format!("the main, after its end: {what}")))?;
        at.stands(Stand::Done);
        Ok(())
    }

    /// Opens a stream for each renderer that says hello.
    #[allow(clippy::too_many_arguments, reason = "what the one listener owns")]
    fn greet(
        &self,
        main: &IpcMain,
        place: &Place,
        board: &str,
        streams: &Streams,
        workers: &Workers,
        stop: &Arc<AtomicBool>,
        begun: &Arc<AtomicU64>,
    ) {
        let seed = self.seed;
        let (place, main_board) = (place.clone(), board.to_owned());
        let (streams, workers, stop, begun) =
            (streams.clone(), Arc::clone(workers), Arc::clone(stop), Arc::clone(begun));
        main.on(HELLO, move |event, name| {
            let keys = Keys::of(seed, name, End::Main);
            let board = Arc::new(Board::create(&place.board(&board_name(name, End::Main)))?);
            let id = event.peer().id;
            streams.lock().insert(id, Stream::new(&place, name, End::Main, keys, Arc::clone(&board)));
            event.set_return_value(&Welcome { board: main_board.clone(), news: begun.load(Ordering::SeqCst) })?;
            let worker = Worker {
                place: place.clone(),
                name: name.to_string(),
                sender: event.sender().clone(),
                board,
                keys,
                lane: 1,
                stop: Arc::clone(&stop),
            };
            workers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, worker.start()?);
            memit::ok()
        });
    }
}

fn listen_for_ends(main: &IpcMain, place: &Place, board: &Arc<Board>, streams: &Streams) {
    let (mut connections, counter) = (0, Arc::clone(board));
    main.on_connect(move |_| {
        connections += 1;
        counter.set(CONNECTIONS, connections);
    });
    let (place, streams) = (place.clone(), streams.clone());
    main.on_disconnect(move |peer, reason| {
        if !is_ordinary(reason) {
            place.tell(&format!("the main lost {peer}: {reason}"));
        }
        if let Some(mut stream) = streams.lock().remove(&peer.id) {
            stream.ended(None);
        }
    });
}

/// Sends to all at once, and tells those that it did not reach what they missed before it goes on.
fn broadcast(main: &IpcMain, place: &Place, board: &Arc<Board>, seed: u64, stop: &AtomicBool, begun: &AtomicU64) {
    let mut at = board.thread(1);
    let (key, mut random) = (news_key(seed), Random::new(news_key(seed)));
    let mut words = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = begun.fetch_add(1, Ordering::SeqCst);
        words.clear();
        words.resize(size(&mut random), 0);
        let sum = Label { key, lane: 0, number }.fill(&mut words);
        at.stands(Stand::Broadcasting);
        for (sender, error) in main.broadcast(NEWS_CHANNEL, &ParcelRef { lane: 0, number, sum, words: &words }) {
            let mut error = error;
            while let SendError::Full { .. } | SendError::Timeout { .. } = error {
                if stop.load(Ordering::Relaxed) {
                    at.stands(Stand::Done);
                    return;
                }
                at.steps();
                match sender.send_timeout(MISSED, &number, Duration::from_millis(50)) {
                    Ok(()) => break,
                    Err(next) => error = next,
                }
            }
            match error {
                SendError::Full { .. } | SendError::Timeout { .. } => {}
                SendError::Disconnected(reason) if is_ordinary(&reason) => {}
                error => place.tell(&format!("broadcast {number} to {}: {error}", sender.peer())),
            }
        }
        board.set(NEWS, number + 1);
        at.steps();
        at.stands(Stand::Pausing);
        thread::sleep(Duration::from_micros(random.below(20_000)));
    }
    at.stands(Stand::Done);
}
