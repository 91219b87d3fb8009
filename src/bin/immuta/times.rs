//! Times on the command line: how long, and since when.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A time such as 2s, 500ms or 1.5m.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || "a time such as 2s, 500ms or 1.5m".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    let number: f64 = digits.parse().map_err(|_| expected())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| expected())
}

/// How long something is to be shown or measured, in seconds.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds from 0.1 to 3600".to_owned())
}

/// So long ago (10m), or at a time: 2026-11-25T19:30:00Z, 2026-11-25T19:30 (of this machine's time zone), @1795634000 (seconds since 1970).
pub fn parse_since(text: &str) -> Result<SystemTime, String> {
    let ago = |ago| SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
    let since_1970 = || Timestamp::from_second(text.strip_prefix('@')?.parse().ok()?).ok();
    let local = || Some(text.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok()?.timestamp());
    if let Ok(duration) = parse_duration(text) {
        return Ok(ago(duration));
    }
    let time = text.parse::<Timestamp>().ok().or_else(since_1970).or_else(local);
    time.map(SystemTime::from)
        .ok_or_else(|| "a time such as 10m, 2026-11-25T19:30:00Z, 2026-11-25T19:30 or @1795634000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "-1s", "2 parsecs", "nan", "inf", "1e400s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn since_is_an_age_or_a_time() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(parse_since("2026-11-25T19:30:00Z"), Ok(at(1_795_635_000)));
        assert_eq!(parse_since("2026-11-25T20:30:00+01:00"), Ok(at(1_795_635_000)));
        assert_eq!(parse_since("@1795635000"), Ok(at(1_795_635_000)));
        // First the age, then the clock: the other way round it is a little less.
        let since = parse_since("10m").unwrap();
        let ago = SystemTime::now().duration_since(since).unwrap();
        assert!(ago >= Duration::from_secs(600) && ago < Duration::from_secs(660));
        assert!(parse_since("2026-11-25T19:30").is_ok() && parse_since("2026-11-25").is_ok());
        for wrong in ["", "yesterday", "2026-13-01", "@x"] {
            assert!(parse_since(wrong).is_err(), "{wrong}");
        }
    }
}
