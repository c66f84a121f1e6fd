//! Named places at which a test kills the process. They exist with `--cfg crash_points` alone.
//!
//! `MEMIT_CRASH=NAME:N` has the process end by SIGKILL when any of its threads passes the point NAME for the Nth time.
//! The tests have a list of all names, and fail if it differs from what is in the code.

/// A place where a process may be killed, once `$half` was done if that is given. Expands to nothing in normal builds.
macro_rules! crash_point {
    ($name:literal $(, after $half:expr)?) => {
        #[cfg(crash_points)]
        {
            $($half;)?
            $crate::crash::pass($name);
        }
    };
}

#[cfg(crash_points)]
pub(crate) use kill::{arm, pass};

#[cfg(crash_points)]
mod kill {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// Where this process is to end.
    struct Plan {
        name: String,
        /// How often the point is still passed alive.
        left: AtomicU64,
    }

    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        PLAN.get_or_init(|| {
            let text = std::env::var("MEMIT_CRASH").ok()?;
            let parsed =
                text.split_once(':').and_then(|(name, nth)| Some((name, nth.parse::<u64>().ok()?.checked_sub(1)?)));
            let Some((name, left)) = parsed else { panic!("MEMIT_CRASH is {text}; expected NAME:N, N from 1 on") };
            Some(Plan { name: name.to_owned(), left: AtomicU64::new(left) })
        })
        .as_ref()
    }

    /// Reads the plan, and has it hold for the points of the ring too. Every endpoint begins with it.
    pub(crate) fn arm() {
        if plan().is_some() {
            memit_ringbuf::on_crash_point(pass);
        }
    }

    pub(crate) fn pass(name: &str) {
        let Some(plan) = plan().filter(|plan| plan.name == name) else { return };
        if plan.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}
