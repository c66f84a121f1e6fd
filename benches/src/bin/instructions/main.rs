//! How many instructions the hot paths take, counted by callgrind and compared with what they took before.
//!
//! `ci/instructions.sh` runs it. Instructions do not depend on what else the machine does, so a change that makes a path
//! longer by a few percent shows at once; what caches and other cores cost does not show at all.
//!
//! The program runs itself under valgrind, where it does each path once, twice and three times as often: from the
//! differences follows what one pass takes, free of what the first and the last cost. The two differences must agree,
//! or the path is not one whose instructions can be counted. Each path checks by content that its work was done. From the
//! same differences, instruction by instruction, follows in which source file they are spent.

mod baseline;
mod callgrind;
mod dump;
mod parts;
mod paths;

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use baseline::{Baseline, Report};
use callgrind::Family;

const USAGE: &str = "usage: instructions BASELINE COMPILER [--parts | --update]; ci/instructions.sh knows both";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [callgrind::COUNTED, family, directory] => counted(family, directory),
        [file, compiler] => compare(Path::new(file), compiler),
        [_, compiler, "--parts"] => show_parts(compiler),
        [file, compiler, "--update"] => update(Path::new(file), compiler),
        _ => Err(USAGE.into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("instructions: {error}");
        ExitCode::FAILURE
    })
}

/// Under valgrind: does the paths of a family.
fn counted(family: &str, directory: &str) -> Result<ExitCode, Box<dyn Error>> {
    let family = Family::ALL.into_iter().find(|known| known.name() == family).ok_or("no such family of paths")?;
    let directory = Path::new(directory);
    match family {
        Family::Local => paths::local(directory)?,
        Family::Caller => paths::caller(directory)?,
        Family::Answerer => paths::answerer(directory)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(file: &Path, compiler: &str) -> Result<ExitCode, Box<dyn Error>> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let baseline = Baseline::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let report = Report::new(&baseline, compiler, callgrind::count()?);
    print!("{report}");
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_parts(compiler: &str) -> Result<ExitCode, Box<dyn Error>> {
    println!("Instructions of one pass of each path, by the file they are spent in, with {compiler}:");
    for parts in callgrind::parts()? {
        print!("\n{parts}");
    }
    Ok(ExitCode::SUCCESS)
}

fn update(file: &Path, compiler: &str) -> Result<ExitCode, Box<dyn Error>> {
    let baseline = Baseline { compiler: compiler.to_owned(), counts: callgrind::count()? };
    fs::write(file, baseline.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
    println!("{}\n{} paths written to {}", baseline::line(&baseline.counts), baseline.counts.len(), file.display());
    Ok(ExitCode::SUCCESS)
}
