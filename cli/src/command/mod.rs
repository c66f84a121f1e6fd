//! One file for each command.

mod bench;
mod call;
mod demo;
mod listen;
mod send;
mod soak;

use std::error::Error;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Demo),
    #[command(hide = true)]
    DemoRenderer(demo::renderer::DemoRenderer),
    Listen(listen::Listen),
    Send(send::Send),
    Call(call::Call),
    Bench(bench::Bench),
    #[command(hide = true)]
    BenchHelper(bench::helper::BenchHelper),
    Soak(soak::Soak),
    #[command(hide = true)]
    SoakMain(soak::lead::SoakMain),
    #[command(hide = true)]
    SoakRenderer(soak::follow::SoakRenderer),
    #[command(hide = true)]
    SoakJanitor(soak::place::SoakJanitor),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Demo(demo) => demo.run()?,
            Self::DemoRenderer(renderer) => renderer.run()?,
            Self::Listen(listen) => listen.run()?,
            Self::Send(send) => send.run()?,
            Self::Call(call) => call.run()?,
            Self::Bench(bench) => bench.run()?,
            Self::BenchHelper(helper) => helper.run()?,
            Self::Soak(soak) => soak.run()?,
            Self::SoakMain(main) => main.run()?,
            Self::SoakRenderer(renderer) => renderer.run()?,
            Self::SoakJanitor(janitor) => janitor.run()?,
        }
        Ok(())
    }
}
