//! Whole numbers as arguments.

/// A number from `LEAST` to `MOST`, or what was expected.
pub(crate) fn whole<N: TryFrom<u64>, const LEAST: u64, const MOST: u64>(text: &str) -> Result<N, String> {
    let number = text.parse().ok().filter(|number| (LEAST..=MOST).contains(number));
    number.and_then(|number| N::try_from(number).ok()).ok_or_else(|| match MOST {
        u64::MAX => format!("expected a whole number from {LEAST} on"),
        _ => format!("expected a whole number from {LEAST} to {MOST}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_within_the_bounds_are_taken_and_all_else_is_told_what_was_expected() {
        assert_eq!((whole::<u32, 1, 64>("1"), whole::<u32, 1, 64>("64")), (Ok(1), Ok(64)));
        for text in ["0", "65", "-1", "0.5", "x", "", " 1", "99999999999999999999"] {
            assert_eq!(whole::<u32, 1, 64>(text).unwrap_err(), "expected a whole number from 1 to 64", "{text}");
        }
        assert_eq!(whole::<u64, 0, { u64::MAX }>("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(whole::<u64, 1, { u64::MAX }>("0").unwrap_err(), "expected a whole number from 1 on");
    }
}
