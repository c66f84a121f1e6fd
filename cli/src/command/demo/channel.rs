//! The channels between the demo's renderers and its main.

use memit::Channel;

/// From a renderer, once, as a call: its number. The main sends [`GREETING`] twice before it answers.
pub(crate) const HELLO: Channel<u32> = Channel::new("hello");

/// From the main, twice: the renderer's number, back.
pub(crate) const GREETING: Channel<u32> = Channel::new("greeting");

/// From a renderer: every line of its file, in order.
pub(crate) const LINE: Channel<Line> = Channel::new("line");

/// From the main, every [`PROGRESS_EVERY`] lines of a renderer: how many have come.
pub(crate) const PROGRESS: Channel<u64> = Channel::new("progress");

/// From a renderer, as a call, behind its last line: what the main has of it.
pub(crate) const TOTALS: Channel<(), Totals> = Channel::new("totals");

/// From a renderer, as a call whose round trip is measured: a number, which comes back.
pub(crate) const PING: Channel<u64, u64> = Channel::new("ping");

/// From a renderer, as a call, the last thing that it says.
pub(crate) const REPORT: Channel<Report> = Channel::new("report");

/// Lines from one [`PROGRESS`] to the next.
pub(crate) const PROGRESS_EVERY: u64 = 1000;

/// A line, or a piece of one that does not fit into a frame.
#[memit::message]
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: u64,
    /// The piece's place in the line, from 0.
    pub(crate) piece: u64,
    /// Whether the line ends with this piece.
    pub(crate) last: bool,
    pub(crate) bytes: Vec<u8>,
}

/// A [`Line`] whose bytes are still in the buffer they were read into.
#[memit::message(as = Line)]
pub(crate) struct LineRef<'a> {
    pub(crate) number: u64,
    pub(crate) piece: u64,
    pub(crate) last: bool,
    pub(crate) bytes: &'a [u8],
}

/// What the main has of one renderer.
#[memit::message]
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    pub(crate) lines: u64,
    pub(crate) words: u64,
    pub(crate) bytes: u64,
    pub(crate) checksum: u64,
    /// How many [`PROGRESS`] messages it has sent to the renderer.
    pub(crate) answers: u64,
}

/// What a renderer found.
#[memit::message]
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// From the first line to the answer to [`TOTALS`].
    pub(crate) nanoseconds: u64,
    pub(crate) sync_p50_nanoseconds: u64,
    pub(crate) sync_p99_nanoseconds: u64,
    /// A sentence for each check that failed.
    pub(crate) failures: Vec<String>,
}
