//! A renderer of the demo: sends every line of a file and compares what the main says of it with its own count.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use memit::IpcRenderer;

use super::{
    channel::{GREETING, HELLO, LINE, LineRef, PING, PROGRESS, PROGRESS_EVERY, REPORT, Report, TOTALS, Totals},
    count::Counts,
    input::{Input, InputError},
    lines::{Lines, Piece},
};

/// Calls whose round trip is measured.
const PINGS: u64 = 2000;

/// The longest round trip that is told from longer ones, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// How long the main may keep silent while an answer of it is due.
const PATIENCE: Duration = Duration::from_secs(30);

/// Hidden: `memit demo` starts its renderers with it.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoRenderer {
    #[arg(long)]
    app: String,
    #[arg(long)]
    number: u32,
    #[arg(long)]
    input: Option<PathBuf>,
    #[arg(long)]
    deaf: bool,
}

/// Why a renderer gave up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RendererError {
    #[error("renderer {number}: {source}")]
    Connect { number: u32, source: memit::ConnectError },
    #[error("renderer {number}: {source}")]
    Open { number: u32, source: InputError },
    #[error("renderer {number}: reading line {line} failed: {source}")]
    Read { number: u32, line: u64, source: io::Error },
    #[error("renderer {number}: sending line {line} failed: {source}")]
    Send { number: u32, line: u64, source: memit::SendError },
    #[error("renderer {number}: calling {channel} failed: {source}")]
    Call { number: u32, channel: &'static str, source: memit::CallError },
    #[error("renderer {number}: dispatching failed: {source}")]
    Dispatch { number: u32, source: memit::RunError },
    #[error("renderer {number}: no histogram: {source}")]
    Histogram { number: u32, source: hdrhistogram::CreationError },
}

impl DemoRenderer {
    pub(crate) fn run(self) -> Result<(), RendererError> {
        let number = self.number;
        let renderer = IpcRenderer::connect(&self.app).map_err(|source| RendererError::Connect { number, source })?;
        let heard = Heard::listen(&renderer);
        renderer.send_sync(HELLO, &number).map_err(|source| call_failed(number, "hello", source))?;

        let begin = Instant::now();
        let sent = self.stream(&renderer)?;
        let totals =
            renderer.send_sync(TOTALS, &()).map_err(|source| call_failed(number, "totals", source))?.into_owned();
        let elapsed = begin.elapsed();

        let histogram = self.measure(&renderer)?;
        self.hear_everything(&renderer, &heard, &totals)?;
        let mut failures = compare(&sent, &totals);
        failures.extend(heard.lock().failures(number, &totals));
        let report = Report {
            nanoseconds: nanoseconds(elapsed),
            sync_p50_nanoseconds: histogram.value_at_quantile(0.5),
            sync_p99_nanoseconds: histogram.value_at_quantile(0.99),
            failures,
        };
        renderer.send_sync(REPORT, &report).map_err(|source| call_failed(number, "report", source))?;
        renderer.shutdown();
        Ok(())
    }

    /// Sends every line, and counts what it sends.
    fn stream(&self, renderer: &IpcRenderer) -> Result<Counts, RendererError> {
        let number = self.number;
        let input = Input::new(self.input.clone());
        let mut lines = Lines::new(input.open().map_err(|source| RendererError::Open { number, source })?);
        let mut counts = Counts::default();
        loop {
            let line = counts.lines + 1;
            let piece = lines.next_piece().map_err(|source| RendererError::Read { number, line, source })?;
            let Some(Piece { line, index, last, bytes }) = piece else {
                return Ok(counts);
            };
            counts.add(bytes, last);
            renderer
                .send(LINE, &LineRef { number: line, piece: index, last, bytes })
                .map_err(|source| RendererError::Send { number, line, source })?;
            if last && !self.deaf && line.is_multiple_of(PROGRESS_EVERY) {
                renderer.poll().map_err(|source| RendererError::Dispatch { number, source })?;
            }
        }
    }

    /// Measures the round trip of synchronous calls, in nanoseconds.
    fn measure(&self, renderer: &IpcRenderer) -> Result<Histogram<u64>, RendererError> {
        let number = self.number;
        let mut histogram =
            Histogram::new_with_bounds(1, LONGEST, 3).map_err(|source| RendererError::Histogram { number, source })?;
        for ping in 0..PINGS {
            let begin = Instant::now();
            renderer.send_sync(PING, &ping).map_err(|source| call_failed(number, "ping", source))?;
            histogram.saturating_record(nanoseconds(begin.elapsed()));
        }
        Ok(histogram)
    }

    /// Dispatches until everything that the main has sent to this renderer has come, or it keeps silent for too long.
    fn hear_everything(&self, renderer: &IpcRenderer, heard: &Heard, totals: &Totals) -> Result<(), RendererError> {
        let number = self.number;
        while !heard.lock().is_complete(totals) {
            if renderer.run_once(PATIENCE).map_err(|source| RendererError::Dispatch { number, source })? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// What the listeners of a renderer have heard.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<Ears>>);

#[derive(Debug, Default)]
struct Ears {
    /// Runs of the listener that stays.
    greetings: Vec<u32>,
    /// Runs of the listener that was added with `once`.
    once: u64,
    /// Runs of the listener that is removed during the first greeting: it still hears that one.
    removed: u64,
    /// Progress messages.
    answers: u64,
    /// The last progress message.
    progress: u64,
    disorder: Option<String>,
}

impl Heard {
    /// Adds the listeners to `renderer`.
    fn listen(renderer: &IpcRenderer) -> Self {
        let heard = Self::default();
        let ears = heard.clone();
        renderer.once(GREETING, move |_, _| ears.lock().once += 1);

        // The listener that stays runs first and removes one that is not known yet when it is added.
        let removed = Arc::new(Mutex::new(None));
        let (ears, removable) = (heard.clone(), Arc::clone(&removed));
        renderer.on(GREETING, move |event, number| {
            ears.lock().greetings.push(number.to_native());
            if let Some(id) = lock(&removable).take() {
                event.emitter().remove_listener(GREETING, id);
            }
        });
        let ears = heard.clone();
        let id = renderer.on(GREETING, move |_, _| ears.lock().removed += 1);
        *lock(&removed) = Some(id);

        let ears = heard.clone();
        renderer.on(PROGRESS, move |_, lines| ears.lock().progress(lines.to_native()));
        heard
    }

    fn lock(&self) -> MutexGuard<'_, Ears> {
        lock(&self.0)
    }
}

impl Ears {
    fn progress(&mut self, lines: u64) {
        if lines <= self.progress || !lines.is_multiple_of(PROGRESS_EVERY) {
            let last = self.progress;
            self.disorder.get_or_insert_with(|| format!("progress of {lines} lines came after that of {last}"));
        }
        self.answers += 1;
        self.progress = lines;
    }

    /// Whether everything has come that was sent before the main gave its `totals`.
    fn is_complete(&self, totals: &Totals) -> bool {
        self.greetings.len() >= 2 && self.answers >= totals.answers
    }

    /// A sentence for each thing that is not as it must be.
    fn failures(&self, number: u32, totals: &Totals) -> Vec<String> {
        let mut failures = Vec::new();
        if self.greetings != [number, number] {
            failures.push(format!("it heard the greetings {:?}, expected [{number}, {number}]", self.greetings));
        }
        if self.once != 1 {
            failures.push(format!("its once listener ran {} times for two greetings, expected 1", self.once));
        }
        if self.removed != 1 {
            failures.push(format!(
                "a listener that was removed during the first of two greetings ran {} times, expected 1",
                self.removed
            ));
        }
        if self.answers != totals.answers {
            failures.push(format!("it heard {} progress messages, the main sent {}", self.answers, totals.answers));
        }
        failures.extend(self.disorder.clone());
        failures
    }
}

/// A sentence for each number in which the main's totals differ from what was sent.
fn compare(sent: &Counts, totals: &Totals) -> Vec<String> {
    [
        ("lines", sent.lines, totals.lines),
        ("words", sent.words, totals.words),
        ("bytes", sent.bytes, totals.bytes),
        ("as checksum", sent.checksum, totals.checksum),
    ]
    .into_iter()
    .filter(|(_, sent, received)| sent != received)
    .map(|(what, sent, received)| format!("it sent {sent} {what}, the main received {received}"))
    .collect()
}

fn call_failed(number: u32, channel: &'static str, source: memit::CallError) -> RendererError {
    RendererError::Call { number, channel, source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(answers: u64) -> Totals {
        Totals { lines: 2, words: 3, bytes: 14, checksum: 0, answers }
    }

    #[test]
    fn equal_counts_compare_equal_and_others_are_named() {
        let mut sent = Counts::default();
        sent.add(b"one two\n", true);
        sent.add(b"three\n", true);
        let mut totals = Totals { checksum: sent.checksum, ..totals(0) };
        assert_eq!(compare(&sent, &totals), [""; 0]);
        totals.words = 4;
        totals.checksum = 1;
        assert_eq!(
            compare(&sent, &totals),
            [
                "it sent 3 words, the main received 4".into(),
                format!("it sent {} as checksum, the main received 1", sent.checksum)
            ]
        );
    }

    #[test]
    fn ears_that_heard_everything_in_order_have_no_complaint() {
        let mut ears = Ears { greetings: vec![5, 5], once: 1, removed: 1, ..Ears::default() };
        ears.progress(1000);
        assert!(!ears.is_complete(&totals(2)));
        ears.progress(3000);
        assert!(ears.is_complete(&totals(2)));
        assert_eq!(ears.failures(5, &totals(2)), [""; 0]);
    }

    #[test]
    fn each_fault_that_was_heard_is_told() {
        let mut ears = Ears { greetings: vec![5], once: 2, removed: 2, ..Ears::default() };
        ears.progress(2000);
        ears.progress(1000);
        assert_eq!(
            ears.failures(5, &totals(3)),
            [
                "it heard the greetings [5], expected [5, 5]",
                "its once listener ran 2 times for two greetings, expected 1",
                "a listener that was removed during the first of two greetings ran 2 times, expected 1",
                "it heard 2 progress messages, the main sent 3",
                "progress of 1000 lines came after that of 2000",
            ]
        );
    }
}
