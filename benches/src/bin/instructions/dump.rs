//! What callgrind writes down, in its [format](https://valgrind.org/docs/manual/cl-format.html).

use std::collections::{BTreeMap, HashMap};
use std::error::Error;

/// What was counted in one go.
#[derive(Debug)]
pub(crate) struct Dump {
    text: String,
    /// All instructions in it.
    pub(crate) total: u64,
}

/// Where an instruction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place<'d> {
    /// The file of the program or library.
    pub(crate) object: &'d str,
    /// As that file counts, wherever it was loaded.
    pub(crate) address: u64,
}

impl Dump {
    pub(crate) fn new(text: String) -> Result<Self, Box<dyn Error>> {
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let total = total.ok_or("a callgrind dump without totals")?.trim().parse()?;
        Ok(Self { text, total })
    }

    /// How often each instruction ran; together as often as the total says.
    pub(crate) fn costs(&self) -> Result<BTreeMap<Place<'_>, u64>, Box<dyn Error>> {
        let mut costs = BTreeMap::new();
        let mut objects = HashMap::new();
        let mut place = Place { object: "", address: 0 };
        let mut is_of_a_call = false;
        for line in self.text.lines() {
            if let Some(name) = line.strip_prefix("ob=") {
                place.object = named(name, &mut objects)?;
            } else if let Some(name) = line.strip_prefix("cob=") {
                named(name, &mut objects)?;
            } else if line.starts_with("calls=") {
                // The next line says where the call stands, and what was counted in the called function.
                is_of_a_call = true;
            } else if line.starts_with(['0', '+', '-', '*']) {
                let mut words = line.split(' ');
                place.address = words.next().and_then(|word| address(word, place.address)).ok_or_else(|| {
                    format!(
                        "found '{line}' in a callgrind dump, expected it to begin with the address of an instruction"
                    )
                })?;
                if !std::mem::take(&mut is_of_a_call) {
                    // The line of the source is second.
                    *costs.entry(place).or_default() += words.nth(1).map_or(Ok(0), str::parse)?;
                }
            }
        }
        let sum: u64 = costs.values().sum();
        if sum != self.total {
            let total = self.total;
            return Err(
                format!("a callgrind dump says {total} instructions in all, and its lines come to {sum}").into()
            );
        }
        Ok(costs)
    }
}

/// A name that is given a number where it first comes, `(6) /lib/libc.so.6`, and is that number afterwards, `(6)`.
fn named<'d>(text: &'d str, names: &mut HashMap<&'d str, &'d str>) -> Result<&'d str, String> {
    let (number, name) = text.split_once(' ').map_or((text, None), |(number, name)| (number, Some(name)));
    if let Some(name) = name {
        names.insert(number, name);
    }
    names.get(number).copied().ok_or_else(|| format!("a callgrind dump has no name for {number}"))
}

/// An address, or its distance from the one before.
fn address(word: &str, before: u64) -> Option<u64> {
    if word == "*" {
        Some(before)
    } else if let Some(address) = word.strip_prefix("0x") {
        u64::from_str_radix(address, 16).ok()
    } else {
        before.checked_add_signed(word.parse().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form that callgrind 3.19 writes with `--dump-instr=yes`: a function of a program calls one of a library. A
    /// line without a count is none of its own, but the format allows it.
    const TEXT: &str = "\
# callgrind format
version: 1
creator: callgrind-3.19.0
positions: instr line
events: Ir
summary: 32

ob=(6) /target/release/instructions
fl=(225) /benches/src/main.rs
fn=(1078) instructions::main
0x53136 66 2
fi=(244) /rustc/library/core/src/hint.rs
+5 491 2
fe=(225)
cob=(3) /lib/libc.so.6
cfi=(143) ./string/memcpy.c
cfn=(804) memcpy
calls=2 0x1a000 +12
+3 -3 20
* * 4
-8 +1 4

ob=(3)
fl=(143)
fn=(804)
0x1a000 12 2
+4 *
+4 * 18

totals: 32
";

    #[test]
    fn each_instruction_is_counted_where_it_stands_and_a_call_where_it_leads() {
        let dump = Dump::new(TEXT.to_owned()).unwrap();
        let (program, library) = ("/target/release/instructions", "/lib/libc.so.6");
        let expected = [
            (library, 0x1a000, 2),
            (library, 0x1a004, 0),
            (library, 0x1a008, 18),
            (program, 0x53136, 2 + 4),
            (program, 0x5313b, 2),
            (program, 0x5313e, 4),
        ];
        let found = dump.costs().unwrap();
        let found: Vec<_> = found.iter().map(|(place, cost)| (place.object, place.address, *cost)).collect();
        assert_eq!(found, expected);
        assert_eq!(dump.total, 32);
    }

    fn refused(from: &str, to: &str) -> String {
        Dump::new(TEXT.replacen(from, to, 1)).and_then(|dump| dump.costs().map(drop)).unwrap_err().to_string()
    }

    #[test]
    fn lines_that_do_not_come_to_the_total_are_refused() {
        let refused = refused("+5 491 2", "+5 491 3");
        assert_eq!(refused, "a callgrind dump says 32 instructions in all, and its lines come to 33");
    }

    #[test]
    fn a_dump_that_breaks_its_format_is_refused() {
        assert_eq!(refused("totals", "sum"), "a callgrind dump without totals");
        assert_eq!(refused("cob=(3) /lib/libc.so.6", "cob=(3)"), "a callgrind dump has no name for (3)");
        assert!(refused("0x53136 66 2", "0xx 66 2").starts_with("found '0xx 66 2' in a callgrind dump"));
        assert!(refused("+5 491 2", "-999999 491 2").starts_with("found '-999999 491 2' in a callgrind dump"));
        assert!(refused("+5 491 2", "+5 491 two").contains("invalid digit"));
    }
}
