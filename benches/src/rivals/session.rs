//! What host and guest are told, segment by segment, and the probe before and after each.
//!
//! The contest tells the host in lines on its standard input, and the host tells the guest in lines likewise: who has nothing to
//! do sleeps, and disturbs no other pair on the same two cores. All that is needed for a segment is told before its
//! first probe, so that between the probes there is nothing but the segment.

use std::io::{self, BufRead, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::Wait;
use super::quantiles::Quantiles;
use crate::ratio::per_round;
use crate::shared::Shared;
use crate::times::Laps;
use crate::{Result, board, ping_pong};

/// Rounds of a probe, and those before it that are not timed: in them both sides wake up.
const PROBE: u64 = 2000;
const WARM_UP: u64 = 64;

/// How the rounds of a segment are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As a whole.
    Plain,
    /// Each is timed.
    Timed,
    /// Each byte is checked.
    Whole,
}

impl Look {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Timed => "timed",
            Self::Whole => "whole",
        }
    }
}

/// Rounds to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The number of the first message.
    pub first: u64,
    /// How many.
    pub rounds: u64,
    /// Whether each byte is to be looked at.
    pub whole: bool,
}

impl Segment {
    /// The numbers of its messages.
    #[must_use]
    pub fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.rounds
    }

    /// The number of the last message.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.first + self.rounds - 1
    }
}

/// The host's side of the session.
pub struct Host {
    board: Arc<Shared>,
    bounced: u64,
    guest: Box<dyn Write + Send>,
    next: u64,
    segment: Segment,
    before: f64,
    /// The stopwatch.
    pub laps: Laps,
    quantiles: Quantiles,
}

impl Host {
    pub(super) fn new(board: Arc<Shared>, guest: impl Write + Send + 'static) -> Result<Self> {
        let segment = Segment { first: 1, rounds: 0, whole: false };
        let guest = Box::new(guest);
        let (laps, quantiles) = (Laps::new()?, Quantiles::new()?);
        Ok(Self { board, bounced: 0, guest, next: 1, segment, before: 0.0, laps, quantiles })
    }

    /// Waits for the next segment, and does the probe before it; `None` at the end.
    pub fn open(&mut self) -> Result<Option<Segment>> {
        loop {
            let Some(words) = heard(&mut io::stdin().lock())? else { return Ok(None) };
            match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["times"] => {
                    let times = self.quantiles.told();
                    let times: Vec<_> = times.iter().map(|(quantile, took)| format!("{quantile}={took}")).collect();
                    say(&format!("times {}", times.join(" ")))?;
                }
                [look, rounds] => {
                    let (rounds, whole) = (number(rounds)?, look == Look::Whole.name());
                    self.laps.time(look == Look::Timed.name());
                    self.segment = Segment { first: self.next, rounds, whole };
                    self.next += rounds;
                    writeln!(self.guest, "{} {rounds} {whole}", self.segment.first)?;
                    self.before = self.probe();
                    return Ok(Some(self.segment));
                }
                _ => return Err(format!("{words:?} is nothing that a host can do").into()),
            }
        }
    }

    /// The segment is over: does the probe after it, and says what came of it.
    pub fn done(&mut self, took: Duration) -> Result<()> {
        let after = self.probe();
        self.quantiles.add(&mut self.laps, self.before, after)?;
        say(&format!("done {} {} {after}", self.before, took.as_nanos()))
    }

    fn probe(&mut self) -> f64 {
        let (there, back) = (self.board.word(board::LINE_THERE), self.board.word(board::LINE_BACK));
        ping_pong::ask(there, back, self.bounced, WARM_UP);
        let took = ping_pong::ask(there, back, self.bounced + WARM_UP, PROBE);
        self.bounced += WARM_UP + PROBE;
        per_round(took, PROBE)
    }
}

/// The guest's side.
pub struct Guest {
    board: Arc<Shared>,
    bounced: u64,
    orders: Box<dyn BufRead + Send>,
}

impl Guest {
    pub(super) fn new(board: Arc<Shared>, orders: impl BufRead + Send + 'static) -> Self {
        Self { board, bounced: 0, orders: Box::new(orders) }
    }

    /// Waits for the next segment, and answers the probe before it; `None` at the end.
    pub fn open(&mut self) -> Result<Option<Segment>> {
        let Some(words) = heard(&mut self.orders)? else { return Ok(None) };
        let [first, rounds, whole] = &words[..] else {
            return Err(format!("{words:?} is nothing that a guest can do").into());
        };
        let segment = Segment { first: number(first)?, rounds: number(rounds)?, whole: number(whole)? };
        self.answer();
        Ok(Some(segment))
    }

    /// The segment is over: answers the probe after it.
    pub fn close(&mut self) {
        self.answer();
    }

    fn answer(&mut self) {
        ping_pong::answer(
            self.board.word(board::LINE_THERE),
            self.board.word(board::LINE_BACK),
            self.bounced,
            WARM_UP + PROBE,
        );
        self.bounced += WARM_UP + PROBE;
    }
}

/// A line to who started this process.
pub(super) fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The words of a line of who started this process; `None` if there will be none.
fn heard(orders: &mut dyn BufRead) -> Result<Option<Vec<String>>> {
    let mut line = String::new();
    if orders.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.split_whitespace().map(str::to_owned).collect()))
}

fn number<N: FromStr>(text: &str) -> Result<N>
where
    N::Err: std::error::Error + Send + Sync + 'static,
{
    Ok(text.parse()?)
}

/// How memit waits where others do.
impl From<Wait> for ::memit::WaitStrategy {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Spin => Self::Spin,
            Wait::Block => Self::Park,
        }
    }
}
