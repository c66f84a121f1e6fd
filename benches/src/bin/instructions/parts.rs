//! Where the instructions of a path are spent, by source file.
//!
//! A file holds one idea, so its module says what the instructions are for. The name of a function would not: the hot
//! paths are inlined into a few functions. An instruction counts to the innermost file that is not the standard
//! library's, among those that the debug information says are inlined there: what `core` does within a copy is the
//! copy's. Only what is the standard library's alone, or has lost its place to the optimizer, counts to `std`. A
//! dependency is one part, and so is a library that was not compiled with the program.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt;
use std::iter;
use std::path::Path;
use std::process::Command;

use crate::baseline::Count;
use crate::callgrind::{PathPasses, per_pass};
use crate::dump::Place;

/// What one pass of a path takes, and its parts, which sum to that.
#[derive(Debug)]
pub(crate) struct Parts {
    whole: Count,
    /// The largest first.
    parts: Vec<(String, f64)>,
}

impl Parts {
    /// Of the `program` that was counted.
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(crate) fn new(program: &Path, passes: &PathPasses) -> Result<Self, Box<dyn Error>> {
        let whole = per_pass(passes)?;
        let [first, .., last] = passes;
        let program = program.to_str().ok_or("the path of this program is not UTF-8")?;
        let mut costs = BTreeMap::<Place<'_>, f64>::new();
        for (dump, sign) in [(&first.dump, -1.0), (&last.dump, 1.0)] {
            for (place, cost) in dump.costs()? {
                *costs.entry(place).or_default() += sign * cost as f64;
            }
        }
        let addresses = costs.keys().filter(|place| place.object == program).map(|place| place.address);
        let in_program = parts_of(program, addresses)?;
        let mut parts = BTreeMap::<&str, f64>::new();
        for (Place { object, address }, cost) in costs {
            let part = if object == program { in_program.get(&address) } else { None };
            let library = || object.rsplit('/').next().unwrap_or_default();
            *parts.entry(part.map_or_else(library, String::as_str)).or_default() += cost;
        }
        let times = (last.times - first.times) as f64;
        let mut parts: Vec<_> = parts.into_iter().map(|(part, cost)| (part.to_owned(), cost / times)).collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(Self { whole, parts })
    }
}

/// Parts of less than this share are shown as one.
const SMALL: f64 = 0.02;

/// A table as Markdown has it. What is shown sums to the whole, to the last digit.
impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = to_tenths(self.whole.instructions);
        let row = |f: &mut fmt::Formatter<'_>, name: &str, instructions: f64| {
            writeln!(f, "| {name:<36} | {instructions:>8.1} | {:>5.1} % |", 100.0 * instructions / whole)
        };
        row(f, &self.whole.path, whole)?;
        writeln!(f, "|{:-<38}|{:->9}:|{:->8}:|", "", "", "")?;
        let mut rest = whole;
        for (part, instructions) in self.parts.iter().filter(|part| part.1 >= SMALL * whole) {
            let instructions = to_tenths(*instructions);
            row(f, part, instructions)?;
            rest -= instructions;
        }
        if to_tenths(rest) == 0.0 { Ok(()) } else { row(f, "smaller parts", rest) }
    }
}

fn to_tenths(count: f64) -> f64 {
    (count * 10.0).round() / 10.0
}

/// The part that the instruction at each of these addresses of the program counts to.
fn parts_of(program: &str, addresses: impl Iterator<Item = u64>) -> Result<HashMap<u64, String>, Box<dyn Error>> {
    let mut tool = Command::new("addr2line");
    tool.args(["--addresses", "--inlines", "--exe", program]).args(addresses.map(|address| format!("{address:#x}")));
    let output = tool
        .output()
        .map_err(|error| format!("addr2line did not start: {error}; install binutils and put it on PATH"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("addr2line ended with {}:\n{said}", output.status).into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::to_str);
    Ok(innermost(&String::from_utf8(output.stdout)?, workspace.ok_or("the path of the workspace is not UTF-8")?))
}

/// From what addr2line says: an address on a line, then a file and a line of it for each function that is inlined there,
/// from the innermost to the one that all are inlined into.
fn innermost(said: &str, workspace: &str) -> HashMap<u64, String> {
    let mut parts = HashMap::new();
    let mut address = 0;
    for line in said.lines() {
        if let Some(next) = line.strip_prefix("0x").and_then(|address| u64::from_str_radix(address, 16).ok()) {
            address = next;
        } else {
            let file = line.rsplit_once(':').map_or(line, |(file, _)| file);
            let part = parts.entry(address).or_insert_with(|| STD.to_owned());
            if part == STD {
                *part = part_of(file, workspace);
            }
        }
    }
    parts
}

const STD: &str = "std";

/// `ringbuf::memory::copy` for a file of the workspace; for one of a dependency, the name of its crate.
fn part_of(file: &str, workspace: &str) -> String {
    if file.starts_with("/rustc/") || file.contains("/rustlib/src/rust/") {
        return STD.to_owned();
    }
    let own = file.strip_prefix(workspace).and_then(|file| file.trim_start_matches('/').split_once("/src/"));
    if let Some((package, file)) = own {
        let modules = file.trim_end_matches(".rs").split('/').filter(|module| !matches!(*module, "lib" | "mod"));
        return iter::once(package).chain(modules).collect::<Vec<_>>().join("::");
    }
    let package = file.rsplit_once("/src/").and_then(|(folder, _)| folder.rsplit('/').next());
    let name = package.and_then(|package| package.rsplit_once('-')).map(|(name, _version)| name);
    name.unwrap_or(file).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_counts_to_the_innermost_file_that_is_not_of_the_standard_library() {
        let said = "\
0x000000000006c3a1
/rustc/5980/library/core/src/iter/adapters/zip.rs:306
/rustc/5980/library/core/src/../../portable-simd/crates/core_simd/src/lib.rs:1 (discriminator 4)
/home/of/memit/ringbuf/src/memory/copy.rs:79
/home/of/memit/engine/src/link/send.rs:234
0x000000000006c3a8
/home/of/.cargo/registry/src/index.crates.io-1949/some-crate-0.8.18/src/string/mod.rs:89
/home/of/memit/api/src/encode/mod.rs:61
0x0000000000053136
/home/of/.rustup/toolchains/stable/lib/rustlib/src/rust/library/core/src/ptr/mod.rs:?
0x00000000000ffff0
??:0
";
        let expected =
            [(0x6_c3a1, "ringbuf::memory::copy"), (0x6_c3a8, "some-crate"), (0x5_3136, "std"), (0xf_fff0, "??")];
        let expected = HashMap::from(expected.map(|(address, part)| (address, part.to_owned())));
        assert_eq!(innermost(said, "/home/of/memit"), expected);
    }

    #[test]
    fn a_file_is_named_as_its_module() {
        let part = |file| part_of(file, "/memit");
        assert_eq!(part("/memit/engine/src/lib.rs"), "engine");
        assert_eq!(part("/memit/api/src/encode/mod.rs"), "api::encode");
        assert_eq!(part("/memit/api/src/encode/output.rs"), "api::encode::output");
        assert_eq!(part("/memit/benches/src/bin/instructions/paths.rs"), "benches::bin::instructions::paths");
    }

    #[test]
    fn what_is_shown_sums_to_the_whole() {
        let whole = Count { path: "send".to_owned(), instructions: 100.14 };
        let parts = [("a", 60.04), ("b", 37.24), ("c", 1.93), ("d", 0.93)];
        let parts = Parts { whole, parts: parts.map(|(part, instructions)| (part.to_owned(), instructions)).into() };
        assert_eq!(
            parts.to_string(),
            "\
| send                                 |    100.1 | 100.0 % |
|--------------------------------------|---------:|--------:|
| a                                    |     60.0 |  59.9 % |
| b                                    |     37.2 |  37.2 % |
| smaller parts                        |      2.9 |   2.9 % |
"
        );
    }
}
