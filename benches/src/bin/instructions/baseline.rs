//! The file of expected counts, and how what was found compares with it.

use std::fmt;

/// What one pass of a path takes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Count {
    pub(crate) path: String,
    pub(crate) instructions: f64,
}

/// The file: the compiler on its first line that is not a comment, then a path and its count on each.
#[derive(Debug, PartialEq)]
pub(crate) struct Baseline {
    pub(crate) compiler: String,
    pub(crate) counts: Vec<Count>,
}

impl Baseline {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
        let (_, compiler) = lines.next().ok_or("names no compiler; write it anew with ci/instructions.sh --update")?;
        let mut counts = Vec::new();
        for (index, line) in lines {
            let count = line.split_once(' ').and_then(|(path, count)| {
                let instructions = count.trim().parse().ok().filter(|count: &f64| *count > 0.0)?;
                Some(Count { path: path.to_owned(), instructions })
            });
            counts.push(count.ok_or_else(|| {
                format!("line {}: found '{line}', expected a path and a number above zero", index + 1)
            })?);
        }
        Ok(Self { compiler: compiler.to_owned(), counts })
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Instructions that one pass of each path takes, with this compiler: ci/instructions.sh compares."
        )?;
        writeln!(f, "# Written by ci/instructions.sh --update.\n{}", self.compiler)?;
        self.counts.iter().try_for_each(|Count { path, instructions }| writeln!(f, "{path:<24} {instructions:>8.1}"))
    }
}

/// A path may take this much more than expected, and no more than this much less without a word.
const TOLERANCE: f64 = 0.03;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Better,
    Worse,
    /// It has no expected count.
    New,
}

/// What was found, beside what was expected.
#[derive(Debug)]
pub(crate) struct Report {
    expected_of: String,
    compiler: String,
    lines: Vec<(Count, Option<f64>, Verdict)>,
    /// Paths that were expected and not found.
    gone: Vec<String>,
}

impl Report {
    pub(crate) fn new(baseline: &Baseline, compiler: &str, found: Vec<Count>) -> Self {
        let gone = |path: &String| !found.iter().any(|count| count.path == *path);
        let gone = baseline.counts.iter().map(|count| count.path.clone()).filter(gone).collect();
        let lines = found.into_iter().map(|count| {
            let expected = baseline.counts.iter().find(|expected| expected.path == count.path);
            let expected = expected.map(|expected| expected.instructions);
            let verdict = match expected {
                None => Verdict::New,
                Some(expected) if count.instructions > expected * (1.0 + TOLERANCE) => Verdict::Worse,
                Some(expected) if count.instructions < expected * (1.0 - TOLERANCE) => Verdict::Better,
                Some(_) => Verdict::Same,
            };
            (count, expected, verdict)
        });
        let lines = lines.collect();
        Self { expected_of: baseline.compiler.clone(), compiler: compiler.to_owned(), lines, gone }
    }

    /// Whether no path takes more than it may. Counts of two compilers do not compare.
    pub(crate) fn is_good(&self) -> bool {
        let is_complete = self.gone.is_empty() && !self.has(Verdict::New);
        is_complete && (!self.is_comparable() || !self.has(Verdict::Worse))
    }

    fn is_comparable(&self) -> bool {
        self.expected_of == self.compiler
    }

    fn has(&self, verdict: Verdict) -> bool {
        self.lines.iter().any(|line| line.2 == verdict)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>9} {:>9} {:>7}", "instructions", "found", "expected", "")?;
        for (Count { path, instructions }, expected, verdict) in &self.lines {
            write!(f, "{path:<24} {instructions:>9.1} ")?;
            match expected {
                Some(expected) => {
                    write!(f, "{expected:>9.1} {:>+6.1}%", (instructions / expected - 1.0) * 100.0)?;
                }
                None => write!(f, "{:>9} {:>7}", "-", "")?,
            }
            f.write_str(match verdict {
                Verdict::Worse if self.is_comparable() => "  FAILED: more than 3 % above\n",
                Verdict::Better if self.is_comparable() => "  better: update the file\n",
                Verdict::New => "  FAILED: no count is expected\n",
                _ => "\n",
            })?;
        }
        for path in &self.gone {
            writeln!(f, "{path:<24} {:>9}  FAILED: a count is expected, and there is no such path", "-")?;
        }
        if !self.is_comparable() {
            writeln!(
                f,
                "NOT COMPARED: the counts are of {}, and the expected ones of {}. Install that compiler with rustup, or \
                 write the file anew with ci/instructions.sh --update.",
                self.compiler, self.expected_of
            )?;
        }
        if !self.is_good() {
            writeln!(
                f,
                "Find what the change added to the path (ci/instructions.sh --parts shows instructions by source file) \
                 and take it out. If it is worth its price, say so in the commit and write the counts anew: \
                 ci/instructions.sh --update"
            )?;
        } else if self.is_comparable() && self.has(Verdict::Better) {
            writeln!(f, "Better than expected. Keep it so: write the counts anew with ci/instructions.sh --update")?;
        }
        let counts: Vec<Count> = self.lines.iter().map(|line| line.0.clone()).collect();
        writeln!(f, "{}", line(&counts))
    }
}

/// All counts on one line.
pub(crate) fn line(counts: &[Count]) -> String {
    let each: Vec<String> = counts.iter().map(|count| format!("{} {:.1}", count.path, count.instructions)).collect();
    format!("instructions: {}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPILER: &str = "rustc 1.95.0 x86_64";

    fn counts(counts: &[(&str, f64)]) -> Vec<Count> {
        counts.iter().map(|(path, count)| Count { path: (*path).to_owned(), instructions: *count }).collect()
    }

    fn baseline() -> Baseline {
        Baseline { compiler: COMPILER.to_owned(), counts: counts(&[("claim", 100.0), ("poll", 50.0)]) }
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        assert_eq!(Baseline::parse(&baseline().to_string()), Ok(baseline()));
    }

    #[test]
    fn a_line_that_is_no_count_is_named() {
        let refused = Baseline::parse("rustc\nclaim many\n").unwrap_err();
        assert_eq!(refused, "line 2: found 'claim many', expected a path and a number above zero");
    }

    #[test]
    fn three_percent_more_pass_and_any_more_than_that_fails() {
        let found = |claim| Report::new(&baseline(), COMPILER, counts(&[("claim", claim), ("poll", 50.0)]));
        assert!(found(103.0).is_good());
        let report = found(103.1);
        assert!(!report.is_good());
        assert!(report.to_string().contains("FAILED: more than 3 %"), "{report}");
    }

    #[test]
    fn a_path_that_got_shorter_passes_and_asks_for_an_update() {
        let report = Report::new(&baseline(), COMPILER, counts(&[("claim", 90.0), ("poll", 50.0)]));
        assert!(report.is_good());
        assert!(report.to_string().contains("better: update the file"), "{report}");
    }

    #[test]
    fn a_path_without_a_count_and_a_count_without_a_path_fail() {
        assert!(!Report::new(&baseline(), COMPILER, counts(&[("claim", 100.0)])).is_good());
        let more = counts(&[("claim", 100.0), ("poll", 50.0), ("send", 1.0)]);
        assert!(!Report::new(&baseline(), COMPILER, more).is_good());
    }

    #[test]
    fn counts_of_another_compiler_are_shown_and_not_judged() {
        let report = Report::new(&baseline(), "rustc 1.96.0", counts(&[("claim", 200.0), ("poll", 50.0)]));
        assert!(report.is_good());
        let shown = report.to_string();
        assert!(shown.contains("NOT COMPARED: the counts are of rustc 1.96.0"), "{shown}");
        assert!(shown.ends_with("instructions: claim 200.0, poll 50.0\n"), "{shown}");
    }
}
