//! One file for each command.

mod call;
mod demo;
mod listen;
mod send;

use std::error::Error;

use clap::Subcommand;

use crate::output::OutputError;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Demo),
    #[command(hide = true)]
    DemoRenderer(demo::renderer::DemoRenderer),
    Listen(listen::Listen),
    Send(send::Send),
    Call(call::Call),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let result: Result<(), Box<dyn Error>> = match self {
            Self::Demo(demo) => demo.run().map_err(Into::into),
            Self::DemoRenderer(renderer) => renderer.run().map_err(Into::into),
            Self::Listen(listen) => listen.run().map_err(Into::into),
            Self::Send(send) => send.run().map_err(Into::into),
            Self::Call(call) => call.run().map_err(Into::into),
        };
        match result {
            // `memit ... | head -1`: who read it has seen enough.
            Err(error) if error.is::<OutputError>() => Ok(()),
            result => result,
        }
    }
}
