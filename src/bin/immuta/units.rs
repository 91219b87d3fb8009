//! Sizes, rates and times as people read and write them.

/// `1GiB`, `64`, `1.5MB` as a number of bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || "a size such as 64, 512KiB, 1GiB or 2GB".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(expected()),
    };
    let digits = digits.trim();
    if let Ok(number) = digits.parse::<u64>() {
        return number.checked_mul(unit).ok_or_else(expected);
    }
    match digits.parse::<f64>() {
        // The conversion saturates; no disk is so large.
        Ok(number) if number.is_finite() && number >= 0.0 => Ok((number * unit as f64) as u64),
        _ => Err(expected()),
    }
}

/// The payload of a record, in bytes, where many of them are made.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let size = parse_bytes(text)?;
    if size <= 64 << 20 { Ok(size) } else { Err("at most 64MiB".to_owned()) }
}

/// `10000`, `10k`, `2.5M`, `1M/s` as a number a second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches("/s");
    let digits = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match number[digits.len()..].to_ascii_lowercase().as_str() {
        "" => Some(1.0),
        "k" => Some(1e3),
        "m" => Some(1e6),
        _ => None,
    };
    let rate = unit.zip(digits.trim().parse::<f64>().ok()).map(|(unit, number)| number * unit);
    rate.filter(|rate| (1.0..=1e8).contains(rate))
        .ok_or_else(|| "a rate such as 500, 10k or 1M, at most 100M".to_owned())
}

/// A number of bytes, in binary units.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = number as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{} {}", three_digits(scaled), UNITS[unit]) }
}

/// A rate, with a decimal prefix.
pub fn rate(per_second: f64) -> String {
    match per_second {
        n if n >= 1e6 => format!("{} M", three_digits(n / 1e6)),
        n if n >= 1e3 => format!("{} k", three_digits(n / 1e3)),
        n => three_digits(n),
    }
}

/// A time.
pub fn time(ns: u64) -> String {
    match ns as f64 {
        n if n >= 1e9 => format!("{} s", three_digits(n / 1e9)),
        n if n >= 1e6 => format!("{} ms", three_digits(n / 1e6)),
        n if n >= 1e3 => format!("{} µs", three_digits(n / 1e3)),
        _ => format!("{ns} ns"),
    }
}

/// A whole number with a comma after each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn three_digits(number: f64) -> String {
    match number {
        n if n >= 99.95 => format!("{n:.0}"),
        n if n >= 9.995 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_bytes("64"), Ok(64));
        assert_eq!(parse_bytes("1GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("2 MB"), Ok(2_000_000));
        assert_eq!(parse_bytes("1.5k"), Ok(1536));
        for wrong in ["", "GiB", "-1", "1 parsec", "nan", "inf", "99999999TiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_have_units() {
        for (text, rate) in [("1", 1.0), ("10k", 1e4), ("2.5M", 2.5e6), ("100 k", 1e5), ("10k/s", 1e4)] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for wrong in ["", "k", "0", "-1", "nan", "inf", "10kHz", "1G", "101M"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(rate(29_148_000.0), "29.1 M");
        assert_eq!(rate(9_999.9), "10.0 k");
        assert_eq!(rate(0.0), "0.00");
        assert_eq!((time(812), time(24_130), time(3_408_000)), ("812 ns".into(), "24.1 µs".into(), "3.41 ms".into()));
        assert_eq!((bytes(64), bytes(1 << 30)), ("64 B".into(), "1.00 GiB".into()));
        assert_eq!((grouped(7), grouped(1_234_567)), ("7".into(), "1,234,567".into()));
    }
}
