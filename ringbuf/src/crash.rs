//! Named places at which a test kills the process. They exist with `--cfg crash_points` alone.

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
static HOOK: std::sync::OnceLock<fn(&str)> = std::sync::OnceLock::new();

/// Has `hook` called with the name of each crash point that is passed. The first hook stays.
#[cfg(crash_points)]
pub fn on_crash_point(hook: fn(&str)) {
    let _ = HOOK.set(hook);
}

#[cfg(crash_points)]
pub(crate) fn pass(name: &str) {
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
}
