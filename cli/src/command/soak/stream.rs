//! One end of one connection: what is heard there, and what its dispatching thread sends back.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use memit::{CallError, Emitter, Event, Payload, Retained, SendError, Sender};

use super::{
    board::{Board, NEWS, Reading, Slot, Stand, State},
    check::{Fault, Inbound, Sent},
    parcel::{ASK, DISPATCH, Label, MISSED, NEWS as NEWS_CHANNEL, PARCEL, PROBE, Parcel, ParcelRef, WORDS, size},
    place::Place,
    random::{self, Random},
};

/// Words in front of a message of plain words: lane, number and check sum.
const HEAD: usize = 3;
/// Messages that are retained at once, and their bytes.
const RETAINED: usize = 48;
const RETAINED_BYTES: usize = 512 << 10;
/// How long a call from within a listener waits: the other side may be inside of one, too.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// How long such a call may take at the most, on a busy machine whose processes are stopped now and then.
const PROBE_MOST: Duration = Duration::from_secs(30);

/// The two ends of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Renderer,
    Main,
}

/// The numbers from which the contents of a stream's messages follow, for one of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) inbound: u64,
    pub(crate) outbound: u64,
    pub(crate) news: u64,
}

impl Keys {
    pub(crate) fn of(seed: u64, name: &str, end: End) -> Self {
        let (up, down) = (random::of(seed, &format!("{name} up")), random::of(seed, &format!("{name} down")));
        let (inbound, outbound) = match end {
            End::Renderer => (down, up),
            End::Main => (up, down),
        };
        Self { inbound, outbound, news: news_key(seed) }
    }
}

pub(crate) fn news_key(seed: u64) -> u64 {
    random::of(seed, "news")
}

/// The label of the answer to a question from the other end.
pub(crate) fn answer_label(answerers_outbound: u64, lane: u64, number: u64) -> Label {
    Label { key: random::mix(answerers_outbound), lane, number }
}

/// The name of the board of that end of a stream.
pub(crate) fn board_name(stream: &str, end: End) -> String {
    match end {
        End::Renderer => format!("{stream}.up"),
        End::Main => format!("{stream}.down"),
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    name: String,
    end: End,
    place: Place,
    keys: Keys,
    inbound: Inbound,
    board: Arc<Board>,
    dispatch: Slot,
    random: Random,
    retained: VecDeque<Kept>,
    retained_bytes: usize,
}

/// A message that its listener kept.
#[derive(Debug)]
enum Kept {
    Archive(Label, u64, Retained<Parcel>),
    Words(Label, u64, Retained<[u64]>),
}

impl Kept {
    fn bytes(&self) -> usize {
        match self {
            Self::Archive(.., parcel) => parcel.words.len() * 8,
            Self::Words(.., words) => words.len() * 8,
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Archive(label, sum, parcel) => label.sum(parcel.words.iter().map(|word| word.to_native())) == *sum,
            Self::Words(label, sum, words) => label.sum(words[HEAD..].iter().copied()) == *sum,
        }
    }
}

impl Stream {
    pub(crate) fn new(place: &Place, name: &str, end: End, keys: Keys, board: Arc<Board>) -> Self {
        let mut dispatch = board.thread(0);
        dispatch.stands(Stand::Dispatching);
        Self {
            name: name.to_owned(),
            end,
            place: place.clone(),
            keys,
            inbound: Inbound::new(keys.inbound, keys.news),
            board,
            dispatch,
            random: Random::new(keys.inbound),
            retained: VecDeque::new(),
            retained_bytes: 0,
        }
    }

    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(crate) fn news_from(&mut self, begun: u64) {
        self.inbound.news_from(begun);
    }

    /// The dispatching thread has come round.
    pub(crate) fn came_round(&mut self) {
        self.dispatch.steps();
        self.board.show_counts();
    }

    fn tell(&self, fault: &Fault) {
        let end = if self.end == End::Main { "main" } else { "renderer" };
        self.place.tell(&format!("stream {}, at its {end}: {fault}", self.name));
    }

    fn check(&self, checked: Result<(), Fault>) {
        if let Err(fault) = checked {
            self.tell(&fault);
        }
    }

    /// Takes a numbered message; returns its label.
    fn parcel(&mut self, lane: u64, number: u64, sum: u64, words: impl ExactSizeIterator<Item = u64>) -> Label {
        let label = self.inbound.label(lane, number);
        self.board.hears(words.len() as u64 * 8);
        let found = label.sum(words);
        let checked = self.inbound.parcel(label, sum, found);
        self.check(checked);
        label
    }

    fn retain(&mut self, kept: Kept) {
        self.retained_bytes += kept.bytes();
        self.retained.push_back(kept);
        while self.retained.len() > RETAINED || self.retained_bytes > RETAINED_BYTES {
            self.look_again();
        }
    }

    /// Looks once more at the oldest of the retained messages, and drops it. `false` if there is none.
    fn look_again(&mut self) -> bool {
        let Some(kept) = self.retained.pop_front() else { return false };
        self.retained_bytes -= kept.bytes();
        if !kept.is_whole() {
            self.place.tell(&format!("stream {}: a retained message has changed: {kept:?}", self.name));
        }
        self.board.looked_again();
        true
    }

    /// Sends something back, now and then, from within the listener of a message from a thread.
    fn send_back(&mut self, sender: &Sender, lane: u64) {
        if lane == DISPATCH {
            return;
        }
        if self.random.once_in(4) {
            let number = self.dispatch.number();
            let label = Label { key: self.keys.outbound, lane: DISPATCH, number };
            let mut words = vec![0; size(&mut self.random).min(4_000)];
            let sum = label.fill(&mut words);
            match sender.send(PARCEL, &ParcelRef { lane: DISPATCH, number, sum, words: &words }) {
                Ok(()) => self.dispatch.sent(),
                Err(SendError::Full { .. }) => self.board.refused(),
                // The end of the connection is met where it is dispatched.
                Err(SendError::Disconnected(_)) => {}
                Err(error) => self.place.tell(&format!("stream {}: sending from a listener: {error}", self.name)),
            }
        }
        if self.random.once_in(5_000) {
            self.probe(sender);
        }
    }

    /// Calls from within a listener. Where the other side does the same one of the two ends without a value.
    fn probe(&mut self, sender: &Sender) {
        let number = self.random.next();
        let begin = Instant::now();
        self.dispatch.stands(Stand::Calling);
        match sender.send_sync_timeout(PROBE, &number, PROBE_PATIENCE) {
            Ok(value) if value.to_native() == number => self.board.answered(),
            Ok(value) => self.place.tell(&format!("stream {}: {number} was answered with {value}", self.name)),
            Err(CallError::Timeout | CallError::WouldDeadlock | CallError::Full { .. }) => self.board.refused(),
            Err(CallError::Disconnected(_)) => {}
            Err(error) => self.place.tell(&format!("stream {}: calling from a listener: {error}", self.name)),
        }
        self.dispatch.stands(Stand::Dispatching);
        if begin.elapsed() > PROBE_MOST {
            self.place.tell(&format!("stream {}: a call took {:?}", self.name, begin.elapsed()));
        }
    }

    /// The other end is gone, and what it had sent has been heard: compares that with what it wrote down. `main` is the
    /// board of a main that is gone.
    pub(crate) fn ended(&mut self, main: Option<&str>) {
        while self.look_again() {}
        let (other, news) = match self.end {
            End::Main => (End::Renderer, 0),
            End::Renderer => {
                let board = main.and_then(|name| Reading::of(&self.place.board(name)));
                (End::Main, board.map_or(0, |board| board.get(NEWS)))
            }
        };
        // Without a board it has sent nothing to count.
        if let Some(board) = Reading::of(&self.place.board(&board_name(&self.name, other))) {
            let sent = Sent { lanes: board.sent(), news, at_rest: !board.is(State::Open) };
            for fault in self.inbound.ended(&sent) {
                self.tell(&fault);
            }
        }
        self.close();
    }

    /// This end leaves, or has nothing to compare with.
    pub(crate) fn close(&mut self) {
        while self.look_again() {}
        self.dispatch.stands(Stand::Done);
        self.board.show_counts();
        self.board.rest(State::Closed);
    }
}

/// The streams of an endpoint, by the peer's number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<u64, Stream>>>);

impl Streams {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<u64, Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the listeners that both ends have.
    pub(crate) fn listen(&self, emitter: &Emitter, place: &Place) {
        let streams = self.clone();
        emitter.on(PARCEL, move |event, parcel| {
            streams.with(event, |stream, event| {
                let (lane, number, sum) = (parcel.lane.to_native(), parcel.number.to_native(), parcel.sum.to_native());
                let label = stream.parcel(lane, number, sum, parcel.words.iter().map(|word| word.to_native()));
                if stream.random.once_in(6) {
                    stream.retain(Kept::Archive(label, sum, event.retain()));
                }
                stream.send_back(event.sender(), lane);
            })
        });
        let streams = self.clone();
        emitter.on(WORDS, move |event, words| {
            streams.with(event, |stream, event| {
                let [lane, number, sum, content @ ..] = words else {
                    stream.place.tell(&format!(
                        "stream {}: garbled: {} words without a head",
                        stream.name,
                        words.len()
                    ));
                    return;
                };
                let label = stream.parcel(*lane, *number, *sum, content.iter().copied());
                if stream.random.once_in(6) {
                    stream.retain(Kept::Words(label, *sum, event.retain()));
                }
                stream.send_back(event.sender(), *lane);
            })
        });
        let streams = self.clone();
        emitter.on(ASK, move |event, question| {
            let answer = streams.lock().get_mut(&event.peer().id).map(|stream| {
                let parcel = &question.parcel;
                let (lane, number) = (parcel.lane.to_native(), parcel.number.to_native());
                let words = parcel.words.iter().map(|word| word.to_native());
                stream.parcel(lane, number, parcel.sum.to_native(), words);
                answer_label(stream.keys.outbound, lane, number)
            });
            let label = answer.ok_or_else(|| memit::Failure::new("no such stream"))?;
            let mut words = vec![0; usize::try_from(question.answer.to_native())?];
            let sum = label.fill(&mut words);
            match event.set_return_value(&ParcelRef { lane: label.lane, number: label.number, sum, words: &words }) {
                // The caller is told.
                Ok(()) | Err(memit::ReturnError::Full { .. }) => memit::ok(),
                Err(error) => Err(error.into()),
            }
        });
        emitter.on(PROBE, |event, number| event.set_return_value(&number.to_native()));
        let streams = self.clone();
        emitter.on(NEWS_CHANNEL, move |event, parcel| {
            streams.with(event, |stream, _| {
                let number = parcel.number.to_native();
                stream.board.hears(parcel.words.len() as u64 * 8);
                let found = stream.inbound.news_label(number).sum(parcel.words.iter().map(|word| word.to_native()));
                let checked = stream.inbound.news(number, parcel.sum.to_native(), found);
                stream.check(checked);
            })
        });
        let streams = self.clone();
        emitter.on(MISSED, move |event, number| {
            streams.with(event, |stream, _| {
                let checked = stream.inbound.missed(number.to_native());
                stream.check(checked);
            })
        });
        let errors = place.clone();
        emitter.on_error(move |error| errors.tell(&format!("dispatching: {error}")));
    }

    fn with<T: Payload + ?Sized>(&self, event: &Event<'_, T>, hear: impl FnOnce(&mut Stream, &Event<'_, T>)) {
        if let Some(stream) = self.lock().get_mut(&event.peer().id) {
            hear(stream, event);
        }
    }

    pub(crate) fn came_round(&self) {
        for stream in self.lock().values_mut() {
            stream.came_round();
        }
    }
}
