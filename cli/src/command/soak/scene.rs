//! All boards of a run at one moment: what has been done in all, and who stands where.

use std::{collections::HashMap, fmt::Write, fs, io};

use super::{
    board::{BYTES, CALLS, CONNECTIONS, HEARD, REFUSED, RETAINED, Reading, SLOTS, Stand, State},
    cast::{Cast, name},
    place::Place,
    watch::Look,
};

/// What has been done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) calls: u64,
    pub(crate) refused: u64,
    pub(crate) retained: u64,
    pub(crate) connections: u64,
}

impl Totals {
    fn add(&mut self, board: &Reading, is_main: bool) {
        self.messages += board.get(HEARD);
        self.bytes += board.get(BYTES);
        self.calls += board.get(CALLS);
        self.refused += board.get(REFUSED);
        self.retained += board.get(RETAINED);
        if is_main {
            self.connections += board.get(CONNECTIONS);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Scene {
    boards: HashMap<String, Reading>,
}

impl Scene {
    /// Reads all boards. Those of streams that have ended at both ends are added to `past`, and removed.
    pub(crate) fn read(place: &Place, cast: &Cast, past: &mut Totals) -> io::Result<Self> {
        let mut boards = HashMap::new();
        for entry in fs::read_dir(place.boards())? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if let Some(reading) = Reading::of(&place.board(&name)) {
                boards.insert(name, reading);
            }
        }
        let mut scene = Self { boards };
        let over: Vec<_> = scene.boards.keys().filter_map(|name| name.strip_suffix(".up")).map(String::from).collect();
        for stream in over {
            let ends = [format!("{stream}.up"), format!("{stream}.down")];
            let is_over = |end: &String| scene.boards.get(end).is_some_and(|board| is_over(board, cast));
            if ends.iter().all(is_over) {
                for end in &ends {
                    if let Some(board) = scene.boards.remove(end) {
                        past.add(&board, false);
                    }
                    fs::remove_file(place.board(end))?;
                }
            }
        }
        Ok(scene)
    }

    /// What has been done in all, with what was done in streams that are past.
    pub(crate) fn totals(&self, past: &Totals) -> Totals {
        let mut totals = *past;
        for (name, board) in &self.boards {
            totals.add(board, name.starts_with("main-"));
        }
        totals
    }

    /// Every thread that has something to do, and whether it could since the last look.
    pub(crate) fn looks(&self, cast: &Cast) -> Vec<Look> {
        let main_ran = cast.main().is_none_or(|main| !main.was_stopped);
        let mut looks = Vec::new();
        for (name, board) in &self.boards {
            let Some(actor) = cast.with_pid(board.pid()).filter(|_| !board.is(State::Closed)) else { continue };
            let other_ran = match name.rsplit_once('.') {
                Some((_, "up")) => main_ran,
                Some((stream, _)) => self.renderer_ran(stream, cast),
                None if name.starts_with("renderer-") => main_ran && cast.main().is_some(),
                None => true,
            };
            for slot in (0..SLOTS).filter(|&slot| !matches!(board.stand(slot), Stand::Absent | Stand::Done)) {
                let thread = format!("thread {slot} of {name}");
                looks.push(Look { thread, steps: board.steps(slot), could: !actor.was_stopped && other_ran });
            }
        }
        // One that was asked to leave has to come to its end.
        let all_ran = cast.actors().all(|(_, actor)| !actor.was_stopped);
        for (whom, actor) in cast.actors().filter(|(_, actor)| actor.leaves) {
            let thread = format!("{} (process {}), asked to leave", name(whom), actor.pid());
            looks.push(Look { thread, steps: 0, could: all_ran });
        }
        looks
    }

    /// Where every thread of the run stands, in words.
    pub(crate) fn stands(&self, cast: &Cast) -> String {
        let mut text = String::new();
        let mut boards: Vec<_> = self.boards.iter().filter(|(_, board)| cast.with_pid(board.pid()).is_some()).collect();
        boards.sort_by_key(|(name, _)| *name);
        for (name, board) in boards {
            let _ = write!(text, "\n  {name} (process {}):", board.pid());
            for slot in (0..SLOTS).filter(|&slot| board.stand(slot) != Stand::Absent) {
                let _ = write!(text, " thread {slot} {:?} after {} steps;", board.stand(slot), board.steps(slot));
            }
            let _ = write!(text, " sent {:?}, heard {}", board.sent(), board.get(HEARD));
        }
        for (whom, actor) in cast.actors() {
            let _ = write!(text, "\n  {} (process {}):", name(whom), actor.pid());
            for task in fs::read_dir(format!("/proc/{}/task", actor.pid())).into_iter().flatten().flatten() {
                let about = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
                let _ = write!(text, " {} in {};", about("comm").trim(), about("wchan").trim());
            }
        }
        text
    }

    fn renderer_ran(&self, stream: &str, cast: &Cast) -> bool {
        let renderer = self.boards.get(&format!("{stream}.up")).and_then(|board| cast.with_pid(board.pid()));
        renderer.is_none_or(|actor| !actor.was_stopped)
    }
}

/// Whether the writer of that board will add nothing to it.
fn is_over(board: &Reading, cast: &Cast) -> bool {
    board.is(State::Closed) || cast.with_pid(board.pid()).is_none()
}
