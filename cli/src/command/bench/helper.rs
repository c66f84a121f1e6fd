//! The peer process of a benchmark, and the one that counts system calls.

use std::ffi::OsString;

use super::BenchError;

/// Hidden: what `memit bench` starts.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchHelper {
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    arguments: Vec<OsString>,
}

impl BenchHelper {
    pub(crate) fn run(self) -> Result<(), BenchError> {
        memit_benches::helper::run(&self.arguments).map_err(BenchError::Helper)
    }
}
