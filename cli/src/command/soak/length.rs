//! How long a run takes, as users write it: `30s`, `10m`, `1h`.

use std::time::Duration;

/// Parses a whole number with one of the units `s`, `m` and `h`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is no length of time; write a number and a unit, as in 30s, 10m or 1h");
    let unit = text.chars().next_back().ok_or_else(fault)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(fault()),
    };
    let number = &text[..text.len() - unit.len_utf8()];
    // `parse` alone would take a sign, too.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fault());
    }
    let number: u64 = number.parse().map_err(|_| fault())?;
    match number.checked_mul(seconds) {
        Some(seconds) if (1..=MOST).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is not between one second and 1,000 hours")),
    }
}

const MOST: u64 = 1000 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_minutes_and_hours_are_understood() {
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "s", "10", "-1s", "+1s", "1.5h", "1d", "10 m", "1ms", "5€", "0s", "1001h", "99999999999999999999h"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
