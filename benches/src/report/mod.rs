//! What a comparison writes: [`table`] for reading, [`plot`] for seeing, [`figures`] for whoever wants to plot it anew.

pub mod figures;
pub mod plot;
pub mod style;
pub mod table;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::rivals::contest::Row;
use crate::rivals::{Wait, Work};
use crate::{Result, machine};

/// The name of the page.
pub const PAGE: &str = "rivals.md";
/// The name of the figures.
pub const FIGURES: &str = "figures.jsonl";
/// Bytes of the message whose rounds are timed one by one.
pub const SMALL: usize = 48;

/// All that there is to report.
#[derive(Debug)]
pub struct Report {
    /// What came of each candidate in each heat.
    pub rows: Vec<Row>,
    /// Processor, kernel, compiler and commit, a line each.
    pub machine: String,
    /// The day, as a calendar has it.
    pub date: String,
    /// Whether segments were few and short.
    pub quick: bool,
}

impl Report {
    /// Says when and where `rows` were measured, which is now and here.
    #[must_use]
    pub fn new(rows: Vec<Row>, quick: bool) -> Self {
        let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
        let date = date.ok().filter(|output| output.status.success());
        let date = date.map_or_else(
            || "an unknown day".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        );
        Self { rows, machine: machine::describe(), date, quick }
    }

    /// Writes page, pictures and figures into `directory`; returns what was written.
    pub fn write(&self, directory: &Path) -> Result<Vec<String>> {
        fs::create_dir_all(directory)
            .map_err(|error| format!("cannot make the directory {}: {error}", directory.display()))?;
        let mut files = vec![(FIGURES.to_owned(), figures::lines(self)?)];
        let mut pictures = Vec::new();
        for wait in [Wait::Spin, Wait::Block] {
            for (name, picture) in [
                (format!("latency-{}.svg", wait.name()), plot::by_payload(&self.rows, wait)?),
                (format!("distribution-{}.svg", wait.name()), plot::distribution(&self.rows, wait)?),
            ] {
                if let Some(picture) = picture {
                    pictures.push(name.clone());
                    files.push((name, picture));
                }
            }
        }
        files.push((PAGE.to_owned(), table::page(self, &pictures)));
        for (name, text) in &files {
            let path = directory.join(name);
            fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(files.into_iter().map(|(name, _)| name).collect())
    }
}

/// The rows of a heat, without those of threads or with those only.
pub(crate) fn heat(rows: &[Row], work: Work, wait: Wait, len: usize, threads: bool) -> impl Iterator<Item = &Row> {
    rows.iter().filter(move |row| {
        let heat = row.heat;
        heat.work == work && heat.wait == wait && heat.len == len && row.name.starts_with("thread-") == threads
    })
}
