//! Lengths of time as people write them: `10s`, `1.5m`, `500ms`, `2h`.

use std::time::Duration;

const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// The length of time in `text`; a number alone is seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "" => Some(1.0),
        _ => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds),
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: Option<f64> = number.parse().ok().filter(|_| digits);
    let seconds = number.zip(seconds_per_unit).map(|(number, unit)| number * unit);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a length of time is written 10s, 1.5m, 500ms, 2h".into())
}

/// A length of time for people, in its two largest units.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_time_in_many_ways() {
        let read = |text| parse(text).ok().map(|duration| duration.as_millis());
        assert_eq!(
            ["10s", "10", "500ms", "1.5m", "2h", "1d"].map(read),
            [Some(10_000), Some(10_000), Some(500), Some(90_000), Some(7_200_000), Some(86_400_000)]
        );
        assert_eq!(
            ["", "s", "-1s", "0", "1x", "1e9s", "inf", "nan", "9999999999999999999999d"].map(read),
            [None; 9]
        );
    }

    #[test]
    fn time_is_shown_in_two_units() {
        let shown = [0, 59, 61, 3600, 90_061].map(|seconds| human(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "59s", "1m01s", "1h00m", "1d01h"]);
    }
}
