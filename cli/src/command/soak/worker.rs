//! A thread that sends and asks, in every way that there is, until it is told to stop or its connection ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use memit::{CallError, Disconnect, SendError, Sender};

use super::{
    board::{Board, Slot, Stand},
    parcel::{ASK, Label, PARCEL, ParcelRef, QuestionRef, WORDS, size},
    place::Place,
    random::Random,
    stream::{Keys, answer_label},
};

/// No call takes so long while both sides run, and no side is stopped for more than a few seconds.
const CALL_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Worker {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) sender: Sender,
    pub(crate) board: Arc<Board>,
    pub(crate) keys: Keys,
    /// The key of the messages from the other end.
    pub(crate) lane: u64,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Why a worker is at its end.
enum Over {
    Stopped,
    Disconnected,
    Fault(String),
}

impl Worker {
    pub(crate) fn start(self) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name(format!("{} {}", self.name, self.lane)).spawn(move || self.run())
    }

    fn run(self) {
        let slot = usize::try_from(self.lane).unwrap_or(0);
        let mut at = self.board.thread(slot);
        let mut random = Random::new(self.keys.outbound ^ self.lane);
        let mut words = Vec::new();
        let over = loop {
            if let Err(over) = self.phase(&mut at, &mut random, &mut words) {
                break over;
            }
        };
        if let Over::Fault(fault) = over {
            self.place.tell(&format!("stream {}, lane {}: {fault}", self.name, self.lane));
        }
        at.stands(Stand::Done);
    }

    /// A burst, or messages with pauses between them, or a pause.
    fn phase(&self, at: &mut Slot, random: &mut Random, words: &mut Vec<u64>) -> Result<(), Over> {
        let (messages, pause) = match random.below(10) {
            0..5 => (random.between(1, 600), 0),
            5..9 => (random.between(1, 30), 3_000),
            _ => (1, 200_000),
        };
        for _ in 0..messages {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Over::Stopped);
            }
            self.message(at, random, words)?;
            if pause > 0 {
                at.stands(Stand::Pausing);
                thread::sleep(Duration::from_micros(random.below(pause)));
            }
        }
        Ok(())
    }

    /// Sends the next message, unless there is no space for it.
    fn message(&self, at: &mut Slot, random: &mut Random, words: &mut Vec<u64>) -> Result<(), Over> {
        let (lane, number) = (self.lane, at.number());
        let label = Label { key: self.keys.outbound, lane, number };
        words.clear();
        words.resize(size(random), 0);
        let sum = label.fill(words);
        let parcel = ParcelRef { lane, number, sum, words };
        at.stands(Stand::Sending);
        let sent = match random.below(40) {
            0 => return self.ask(at, random, parcel),
            1 => {
                at.stands(Stand::Lending);
                self.lend(label, sum, words)
            }
            2..6 => {
                let head = [lane, number, sum];
                words.splice(0..0, head);
                self.sender.send(WORDS, &words[..])
            }
            6..12 => self.sender.try_send(PARCEL, &parcel),
            12..16 => self.sender.send_timeout(PARCEL, &parcel, Duration::from_millis(random.below(20))),
            _ => self.sender.send(PARCEL, &parcel),
        };
        match sent {
            Ok(()) => at.sent(),
            Err(SendError::Full { .. } | SendError::Timeout { .. }) => self.board.refused(),
            Err(SendError::Disconnected(reason)) => return Err(disconnected(&reason)),
            Err(error) => return Err(Over::Fault(format!("sending {} words: {error}", words.len()))),
        }
        Ok(())
    }

    fn lend(&self, label: Label, sum: u64, words: &[u64]) -> Result<(), SendError> {
        let mut loan = self.sender.loan(WORDS, words.len() + 3)?;
        loan[..3].copy_from_slice(&[label.lane, label.number, sum]);
        loan[3..].copy_from_slice(words);
        loan.commit()
    }

    fn ask(&self, at: &mut Slot, random: &mut Random, parcel: ParcelRef<'_>) -> Result<(), Over> {
        at.stands(Stand::Calling);
        let number = parcel.number;
        let question = QuestionRef { parcel, answer: size(random) as u64 };
        let answer = match self.sender.send_sync_timeout(ASK, &question, CALL_PATIENCE) {
            Ok(answer) => answer,
            Err(CallError::Full { .. }) => {
                self.board.refused();
                return Ok(());
            }
            // It was heard, and there was no room for the answer.
            Err(CallError::ReplyFailed(reason)) if reason.contains("arena_limit") => {
                at.sent();
                self.board.refused();
                return Ok(());
            }
            Err(CallError::Disconnected(reason)) => return Err(disconnected(&reason)),
            Err(error) => return Err(Over::Fault(format!("question {number}: {error}"))),
        };
        let label = answer_label(self.keys.inbound, self.lane, number);
        let sum = label.sum(answer.words.iter().map(|word| word.to_native()));
        let is_its =
            answer.lane == self.lane && answer.number == number && answer.words.len() as u64 == question.answer;
        if !is_its || answer.sum != sum {
            return Err(Over::Fault(format!("garbled: the answer to question {number} is another one")));
        }
        at.sent();
        self.board.answered();
        Ok(())
    }
}

/// The ends that a run brings about.
pub(crate) fn is_ordinary(reason: &Disconnect) -> bool {
    matches!(reason, Disconnect::Left | Disconnect::Died | Disconnect::ShutDown)
}

fn disconnected(reason: &Disconnect) -> Over {
    if is_ordinary(reason) { Over::Disconnected } else { Over::Fault(format!("disconnected: {reason}")) }
}
