//! What the types refuse, and what they say: each program in `ui` fails to compile with the text beside it.
//!
//! After an intended change, `TRYBUILD=overwrite cargo test -p memit --test compile_fail` writes the texts anew.

#[test]
fn misuse_is_refused_with_a_readable_text() {
    let programs = trybuild::TestCases::new();
    programs.compile_fail("tests/ui/*.rs");
}
