//! What the children do. A role is its name, a dot, and how to wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memit::{IpcMain, IpcRenderer, WaitStrategy};
use rustix::fs::Mode;

use crate::common::say;
use crate::ledger::Ledger;
use crate::leftovers::Leftovers;
use crate::survivors::Renderer;
use crate::traffic::{CALLS, ENDING, Traffic, settings};
use crate::{APP, NEVER};

pub fn play(role: &str, dir: &str) {
    abort_on_panic();
    let (role, wait) = role.split_once('.').unwrap();
    let wait = match wait {
        "park" => WaitStrategy::Park,
        "adaptive" => WaitStrategy::Adaptive,
        unknown => panic!("there is no way to wait {unknown}"),
    };
    let ledger = Arc::new(Ledger::inherited());
    match role {
        "renderer" => {
            let renderer = settings(IpcRenderer::builder(), dir, wait).connect(APP).unwrap();
            let _traffic = Traffic::on(&renderer, &ledger);
            say("connected");
            let _ = renderer.run();
        }
        "main" => {
            let main = settings(IpcMain::builder(), dir, wait).bind(APP).unwrap();
            let _traffic = Traffic::on(&main, &ledger);
            say("bound");
            main.run().unwrap();
        }
        "main-that-ends" => {
            let main = settings(IpcMain::builder(), dir, wait).bind(APP).unwrap();
            let _traffic = Traffic::on(&main, &ledger);
            say("bound");
            while CALLS.load(Ordering::Relaxed) < 5 {
                main.run_once(NEVER).unwrap();
            }
            ENDING.store(true, Ordering::SeqCst);
            main.shutdown();
        }
        "renderer-that-ends" => {
            let renderer = settings(IpcRenderer::builder(), dir, wait).connect(APP).unwrap();
            let _traffic = Traffic::on(&renderer, &ledger);
            while CALLS.load(Ordering::Relaxed) < 5 {
                renderer.run_once(NEVER).unwrap();
            }
            ENDING.store(true, Ordering::SeqCst);
            renderer.shutdown();
        }
        "bind" | "bind-masked" => {
            if role == "bind-masked" {
                rustix::process::umask(Mode::RWXU | Mode::RWXG | Mode::RWXO);
            }
            let main = settings(IpcMain::builder(), dir, wait).bind(APP).unwrap();
            main.shutdown();
        }
        "survivor" => survive(dir, &ledger, wait),
        unknown => panic!("unknown role {unknown}"),
    }
}

/// A renderer in a process of its own that outlives its main, and keeps nothing of it.
fn survive(dir: &str, ledger: &Arc<Ledger>, wait: WaitStrategy) {
    /// The main is killed long before.
    const LONG: Duration = Duration::from_secs(60);
    let before = Leftovers::now();
    let mains_pid = dir_holder(dir);
    if let Some(renderer) = Renderer::connect(dir, ledger, wait) {
        renderer.end(mains_pid, LONG);
        before.with_library_thread().assert_back();
    }
    say("survived");
}

/// The process that has bound the name, as its lock file tells.
fn dir_holder(dir: &str) -> i32 {
    std::fs::read_to_string(format!("{dir}/{APP}.lock")).unwrap().trim().parse().unwrap()
}

/// Any panic, in whichever thread, ends the child in a way that is no kill.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}
