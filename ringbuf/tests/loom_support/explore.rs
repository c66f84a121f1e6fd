//! How a model is run. It says how often a thread may be preempted in one execution; within that bound loom tries every
//! interleaving, and every value that a load may return. What was run is printed, for `ci/models.sh` to count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Prints what was explored, also when the model fails, as some are there to do.
struct Explored {
    preemptions: Option<usize>,
    executions: Arc<AtomicU64>,
}

impl Drop for Explored {
    fn drop(&mut self) {
        let bound = self.preemptions.map_or("unbounded".into(), |most| format!("at most {most}"));
        let outcome = if thread::panicking() { "until one failed" } else { "in all" };
        let name = thread::current().name().unwrap_or("?").to_owned();
        let executions = self.executions.load(Ordering::Relaxed);
        // In one piece and on a line of its own: other models print at the same time.
        println!("\nmodel {name}: preemptions {bound}; {executions} executions {outcome}");
    }
}

/// Checks a model with at most `preemptions` preemptions in each execution, or with any number.
pub(crate) fn explore(preemptions: Option<usize>, body: impl Fn() + Sync + Send + 'static) {
    let executions = Arc::new(AtomicU64::new(0));
    let _explored = Explored { preemptions, executions: Arc::clone(&executions) };
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        executions.fetch_add(1, Ordering::Relaxed);
        body();
    });
}
