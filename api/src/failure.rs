//! How a listener or handler fails.

use std::{error::Error, fmt};

/// What went wrong, in words that travel: a text and the texts of its causes.
///
/// Any error becomes one through `?`. (That is why `Failure` itself is not an `Error`.)
///
/// ```
/// use memit::Failure;
///
/// fn parse(text: &str) -> Result<i32, Failure> {
///     Ok(text.parse::<i32>()?)
/// }
/// assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
#[crate::message]
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    text: String,
    causes: Vec<String>,
}

/// Causes beyond this many are left out; a chain of causes can be a circle.
const MAX_CAUSES: usize = 16;

impl Failure {
    /// A failure without a cause.
    pub fn new(text: impl fmt::Display) -> Self {
        Failure { text: text.to_string(), causes: Vec::new() }
    }

    /// The same failure, with one more cause at its end.
    #[must_use]
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why, the nearest cause first.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.causes
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        Failure { text: error.to_string(), causes: causes.take(MAX_CAUSES).map(ToString::to_string).collect() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ArchivedFailure {
    /// What went wrong.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why, the nearest cause first.
    pub fn causes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.causes.iter().map(|cause| cause.as_str())
    }
}

impl fmt::Display for ArchivedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.causes().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// What a listener may return: nothing, or a `Result` whose error goes to the error listeners.
#[diagnostic::on_unimplemented(
    message = "a listener cannot return `{Self}`",
    label = "a listener returns `()` or `Result<(), E>`",
    note = "end the listener with a semicolon, or with `memit::ok()` after the last `?`"
)]
pub trait Outcome {
    /// The failure, if there is one.
    fn into_failure(self) -> Option<Failure>;
}

impl Outcome for () {
    #[inline]
    fn into_failure(self) -> Option<Failure> {
        None
    }
}

impl<E: Into<Failure>> Outcome for Result<(), E> {
    #[inline]
    fn into_failure(self) -> Option<Failure> {
        self.err().map(Into::into)
    }
}

/// The last line of a listener that uses `?`: it tells the compiler what errors become.
///
/// ```
/// let listener = |text: &str| {
///     let _: i32 = text.parse()?;
///     memit::ok()
/// };
/// assert!(listener("1").is_ok());
/// ```
///
/// # Errors
///
/// Never.
#[inline]
pub fn ok() -> Result<(), Failure> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the house burns")]
    struct Burning(#[source] std::num::ParseIntError);

    #[test]
    fn an_error_keeps_its_causes() {
        let failure = Failure::from(Burning("x".parse::<i32>().unwrap_err()));
        assert_eq!(failure.text(), "the house burns");
        assert_eq!(failure.causes(), ["invalid digit found in string"]);
        assert_eq!(failure.to_string(), "the house burns: invalid digit found in string");
    }

    #[test]
    fn a_circle_of_causes_ends() {
        #[derive(Debug, thiserror::Error)]
        #[error("again")]
        struct Again;
        #[derive(Debug)]
        struct Circle;
        impl fmt::Display for Circle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("round")
            }
        }
        impl Error for Circle {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&Circle)
            }
        }
        assert_eq!(Failure::from(Circle).causes().len(), MAX_CAUSES);
        assert_eq!(Failure::from(Again).causes().len(), 0);
    }
}
