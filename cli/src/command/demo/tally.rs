//! What the demo's main knows of its renderers: a plain state machine, fed by the listeners and by the threads that
//! wait for the child processes.

use std::collections::BTreeMap;

use super::{
    channel::{PROGRESS_EVERY, Report, Totals},
    count::Counts,
};

/// Failures that are told, of those that belong to no renderer.
const MOST_FAILURES: usize = 20;

/// Everything the main knows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By the number that the demo gave each of them, from 1.
    renderers: BTreeMap<u32, Renderer>,
    /// From the id of a connection to the number of its renderer.
    numbers: BTreeMap<u64, u32>,
    connected: usize,
    running: usize,
    /// Failures that belong to no renderer.
    failures: Vec<String>,
}

/// What the main knows of one renderer.
#[derive(Debug, Default)]
pub(crate) struct Renderer {
    pub(crate) pid: u32,
    pub(crate) counts: Counts,
    pub(crate) messages: u64,
    /// Progress messages that were sent to it.
    pub(crate) answers: u64,
    /// Progress messages that found no room, because it takes none or too slowly.
    pub(crate) skipped: u64,
    pub(crate) report: Option<Report>,
    pub(crate) failures: Vec<String>,
    /// Pieces of the line that is on its way.
    pieces: u64,
}

impl Tally {
    /// A child process has been started as renderer `number`.
    pub(crate) fn started(&mut self, number: u32, pid: u32) {
        self.running += 1;
        self.renderers.insert(number, Renderer { pid, ..Renderer::default() });
    }

    /// The child process of renderer `number` has ended; `fault` says how, unless it ended well.
    pub(crate) fn ended(&mut self, number: u32, fault: Option<String>) {
        self.running -= 1;
        if let (Some(renderer), Some(fault)) = (self.renderers.get_mut(&number), fault) {
            renderer.failures.push(format!("its process {fault}"));
        }
    }

    pub(crate) fn connected(&mut self) {
        self.connected += 1;
    }

    /// The connection with id `peer` has ended, and nothing more will come from it.
    pub(crate) fn disconnected(&mut self, peer: u64, reason: &str) {
        self.connected -= 1;
        if let Some(renderer) = self.renderer(peer)
            && renderer.report.is_none()
        {
            renderer.failures.push(format!("its connection ended before its report: {reason}"));
        }
    }

    /// Whether every renderer has come and gone.
    pub(crate) fn is_over(&self) -> bool {
        self.running == 0 && self.connected == 0
    }

    /// The connection with id `peer` says that it is renderer `number`.
    pub(crate) fn hello(&mut self, peer: u64, number: u32) {
        if self.renderers.contains_key(&number) {
            self.numbers.insert(peer, number);
        } else {
            self.fail(format!("a connection says that it is renderer {number}, which was never started"));
        }
    }

    /// A piece of a line has come. Returns how many lines are complete when that is a number to tell the renderer.
    pub(crate) fn line(&mut self, peer: u64, number: u64, piece: u64, last: bool, bytes: &[u8]) -> Option<u64> {
        let Some(renderer) = self.renderer(peer) else {
            self.fail("a line came from a connection that had not said which renderer it is".into());
            return None;
        };
        let expected = (renderer.counts.lines + 1, renderer.pieces);
        if (number, piece) != expected && renderer.failures.is_empty() {
            renderer.failures.push(format!(
                "piece {piece} of line {number} came where piece {} of line {} was due",
                expected.1, expected.0
            ));
        }
        renderer.messages += 1;
        renderer.counts.add(bytes, last);
        renderer.pieces = if last { 0 } else { renderer.pieces + 1 };
        let lines = renderer.counts.lines;
        (last && lines.is_multiple_of(PROGRESS_EVERY)).then_some(lines)
    }

    /// A progress message was sent, or found no room.
    pub(crate) fn answered(&mut self, peer: u64, sent: bool) {
        if let Some(renderer) = self.renderer(peer) {
            *if sent { &mut renderer.answers } else { &mut renderer.skipped } += 1;
        }
    }

    pub(crate) fn totals(&mut self, peer: u64) -> Option<Totals> {
        let Renderer { counts, answers, .. } = self.renderer(peer)?;
        let Counts { lines, words, bytes, checksum, .. } = *counts;
        Some(Totals { lines, words, bytes, checksum, answers: *answers })
    }

    pub(crate) fn report(&mut self, peer: u64, report: Report) {
        if let Some(renderer) = self.renderer(peer) {
            renderer.failures.extend(report.failures.iter().cloned());
            renderer.report = Some(report);
        }
    }

    /// Notes a failure that belongs to no renderer. After the first ones, more of them say nothing new.
    pub(crate) fn fail(&mut self, failure: String) {
        if self.failures.len() < MOST_FAILURES {
            self.failures.push(failure);
        }
    }

    /// Lines and bytes of all renderers together.
    pub(crate) fn sum(&self) -> (u64, u64) {
        self.renderers
            .values()
            .fold((0, 0), |(lines, bytes), renderer| (lines + renderer.counts.lines, bytes + renderer.counts.bytes))
    }

    /// The renderers by their numbers.
    pub(crate) fn renderers(&self) -> impl Iterator<Item = (u32, &Renderer)> {
        self.renderers.iter().map(|(number, renderer)| (*number, renderer))
    }

    /// Every failure, as sentences that say whose it is.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut all = self.failures.clone();
        for (number, renderer) in self.renderers() {
            all.extend(renderer.failures.iter().map(|failure| format!("renderer {number}: {failure}")));
            if renderer.failures.is_empty() && renderer.report.is_none() {
                all.push(format!("renderer {number}: it ended without a report"));
            }
        }
        all
    }

    fn renderer(&mut self, peer: u64) -> Option<&mut Renderer> {
        self.renderers.get_mut(self.numbers.get(&peer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_renderer() -> Tally {
        let mut tally = Tally::default();
        tally.started(1, 100);
        tally.connected();
        tally.hello(7, 1);
        tally
    }

    fn report() -> Report {
        Report { nanoseconds: 1, sync_p50_nanoseconds: 1, sync_p99_nanoseconds: 1, failures: Vec::new() }
    }

    #[test]
    fn a_renderer_that_does_its_work_and_leaves_is_no_failure() {
        let mut tally = one_renderer();
        assert_eq!(tally.line(7, 1, 0, true, b"one two\n"), None);
        tally.report(7, report());
        assert!(!tally.is_over());
        tally.disconnected(7, "left");
        assert!(!tally.is_over());
        tally.ended(1, None);
        assert!(tally.is_over());
        assert_eq!(tally.failures(), [""; 0]);
        assert_eq!(tally.sum(), (1, 8));
    }

    #[test]
    fn pieces_of_one_line_are_several_messages_and_one_line() {
        let mut tally = one_renderer();
        tally.line(7, 1, 0, false, b"one tw");
        tally.line(7, 1, 1, true, b"o\n");
        tally.line(7, 2, 0, true, b"three\n");
        let totals = tally.totals(7).unwrap();
        assert_eq!((totals.lines, totals.words, totals.bytes), (2, 3, 14));
        assert_eq!(tally.renderers().next().unwrap().1.messages, 3);
        assert_eq!(tally.renderers().next().unwrap().1.failures, [""; 0]);
    }

    #[test]
    fn a_line_that_is_missing_is_a_failure_that_names_it() {
        let mut tally = one_renderer();
        tally.line(7, 1, 0, true, b"\n");
        tally.line(7, 3, 0, true, b"\n");
        assert_eq!(tally.failures(), ["renderer 1: piece 0 of line 3 came where piece 0 of line 2 was due"]);
    }

    #[test]
    fn progress_is_due_when_a_thousandth_line_is_complete() {
        let mut tally = one_renderer();
        let due: Vec<_> = (1..=2500).filter_map(|number| tally.line(7, number, 0, true, b"x\n")).collect();
        assert_eq!(due, [1000, 2000]);
        tally.answered(7, true);
        tally.answered(7, false);
        assert_eq!(tally.totals(7).unwrap().answers, 1);
    }

    #[test]
    fn a_renderer_that_dies_is_a_failure_that_says_how() {
        let mut tally = one_renderer();
        tally.disconnected(7, "died");
        tally.ended(1, Some("was killed by signal 9".into()));
        assert_eq!(
            tally.failures(),
            [
                "renderer 1: its connection ended before its report: died",
                "renderer 1: its process was killed by signal 9"
            ]
        );
    }

    #[test]
    fn a_renderer_that_never_comes_is_a_failure() {
        let mut tally = Tally::default();
        tally.started(1, 100);
        tally.ended(1, None);
        assert!(tally.is_over());
        assert_eq!(tally.failures(), ["renderer 1: it ended without a report"]);
    }

    #[test]
    fn strangers_are_failures() {
        let mut tally = Tally::default();
        tally.hello(7, 3);
        assert_eq!(tally.line(7, 1, 0, true, b""), None);
        assert_eq!(tally.failures().len(), 2);
    }
}
