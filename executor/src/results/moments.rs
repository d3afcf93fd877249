//! Dates and times as texts and as numbers since 1970, both ways, exactly; also years beyond four digits and before Christ,
//! which Postgres has. Pure.

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl Unit {
    fn digits(self) -> usize {
        match self {
            Unit::Seconds => 0,
            Unit::Milliseconds => 3,
            Unit::Microseconds => 6,
            Unit::Nanoseconds => 9,
        }
    }
}

const DAY: i128 = 86_400;

fn unlike(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    if shown.to_ascii_lowercase().contains("infinity") {
        return format!("{shown} is no date that the format has");
    }
    format!("{shown:?} is not a date or time")
}

/// Days since 1970-01-01 of `2026-11-20`, `-0043-03-15` or `0044-03-15 BC`.
pub(super) fn days(text: &str) -> Result<i32, String> {
    let (date, year_before) = match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let days = date_days(date, year_before).ok_or_else(|| unlike(text))?;
    i32::try_from(days).map_err(|_| unlike(text))
}

/// Units since 1970 of `2026-11-20T12:30:00.123456`, with or without `Z`.
pub(super) fn since_epoch(text: &str, unit: Unit) -> Result<i64, String> {
    let wrong = || unlike(text);
    let (body, year_before) = match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let body = body.strip_suffix('Z').or_else(|| body.strip_suffix("+00:00")).unwrap_or(body);
    // The first character may be the year's sign.
    let at = body.find(['T', ' ']).ok_or_else(wrong)?;
    let (date, time) = (&body[..at], &body[at + 1..]);
    let days = date_days(date, year_before).ok_or_else(wrong)?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.split(':');
    let mut part = |most: i128| parts.next().and_then(|p| number(p, 2)).filter(|n| *n <= most);
    // Postgres has 24:00:00; a leap second is what some sources send.
    let (hours, minutes) = (part(24).ok_or_else(wrong)?, part(59).ok_or_else(wrong)?);
    let seconds = part(60).ok_or_else(wrong)?;
    if parts.next().is_some() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = unit.digits();
    if fraction.len() > digits {
        return Err(format!("{text} is finer than the format's time"));
    }
    let fraction = format!("{fraction}{}", "0".repeat(digits - fraction.len()));
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| wrong())? };
    let whole = days * DAY + hours * 3600 + minutes * 60 + seconds;
    let units = whole * 10i128.pow(digits as u32) + fraction;
    i64::try_from(units).map_err(|_| format!("{text} is beyond what the format's time can hold"))
}

/// `2026-11-20`; years beyond 9999 have more digits, before Christ `-` (year 0 is 1 BC).
pub(super) fn date_text(days: i64) -> String {
    let (year, month, day) = civil(i128::from(days));
    match year {
        0.. => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("-{:04}-{month:02}-{day:02}", -year),
    }
}

/// `2026-11-20T12:30:00.123456`: the digits behind the point that are not zero, at least none; `Z` if it is in UTC.
pub(super) fn time_text(units: i64, unit: Unit, utc: bool) -> String {
    let a_second = 10i128.pow(unit.digits() as u32);
    let seconds = i128::from(units).div_euclid(a_second);
    let fraction = i128::from(units).rem_euclid(a_second);
    let (days, clock) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let mut text = date_text(days as i64);
    text.push_str(&format!("T{:02}:{:02}:{:02}", clock / 3600, clock / 60 % 60, clock % 60));
    if fraction != 0 {
        let digits = format!("{fraction:0width$}", width = unit.digits());
        let digits = digits.trim_end_matches('0');
        // As Postgres and ClickHouse write them: three, six or nine.
        let width = digits.len().div_ceil(3) * 3;
        text.push_str(&format!(".{digits:0<width$}"));
    }
    if utc {
        text.push('Z');
    }
    text
}

fn number(text: &str, digits: usize) -> Option<i128> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn date_days(text: &str, year_before: bool) -> Option<i128> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = rest.rsplitn(3, '-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if !(4..=7).contains(&year.len()) {
        return None;
    }
    let year = number(year, year.len())?;
    let year = match (negative, year_before) {
        (true, _) => -year,
        (false, true) => 1 - year,
        (false, false) => year,
    };
    let (month, day) = (number(month, 2)?, number(day, 2)?);
    if !(1..=12).contains(&month) || day < 1 || day > last_day(year, month) {
        return None;
    }
    Some(from_civil(year, month, day))
}

fn last_day(year: i128, month: i128) -> i128 {
    let leap = (year.rem_euclid(4) == 0 && year.rem_euclid(100) != 0) || year.rem_euclid(400) == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, reckoned from March so that leap days come last.
fn from_civil(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: i128) -> (i128, i128, i128) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i128::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_back_as_they_went_in() {
        for (text, expected) in [
            ("1970-01-01", 0),
            ("2026-11-20", 20_777),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("0001-01-01", -719_162),
            ("0000-02-29", -719_469),
            ("-0043-03-15", -735_160),
            ("5874897-12-31", 2_145_042_905),
        ] {
            assert_eq!(days(text), Ok(expected), "{text}");
            assert_eq!(date_text(i64::from(expected)), text);
        }
        assert_eq!(days("0044-03-15 BC"), days("-0043-03-15"));
        for at in (-4_000_000..4_000_000).step_by(997) {
            assert_eq!(days(&date_text(at)), Ok(at as i32));
        }
        for wrong in ["", "2026-13-01", "2023-02-29", "1900-02-29", "26-01-01", "2026-1-1", "infinity", "2026-01-01x"] {
            assert!(days(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_come_back_as_they_went_in() {
        use Unit::{Microseconds, Nanoseconds};
        for (text, unit, expected) in [
            ("1970-01-01T00:00:00", Microseconds, 0),
            ("1969-12-31T23:59:59.999999", Microseconds, -1),
            ("2026-11-20T12:30:00.123456", Microseconds, 1_795_177_800_123_456),
            ("2026-11-20T12:30:00.120", Microseconds, 1_795_177_800_120_000),
            ("2026-11-20T12:30:00.123456789", Nanoseconds, 1_795_177_800_123_456_789),
            ("294247-01-10T04:00:54.775807", Microseconds, i64::MAX),
            ("-290308-12-21T19:59:05.224192", Microseconds, i64::MIN),
        ] {
            assert_eq!(since_epoch(text, unit), Ok(expected), "{text}");
            assert_eq!(time_text(expected, unit, false), text);
            assert_eq!(since_epoch(&format!("{text}Z"), unit), Ok(expected));
        }
        assert_eq!(time_text(0, Microseconds, true), "1970-01-01T00:00:00Z");
        assert_eq!(since_epoch("1970-01-01 24:00:00", Microseconds), Ok(86_400_000_000));
        for wrong in
            ["2026-11-20", "2026-11-20T25:00:00", "2026-11-20T12:00:00.1234567", "infinity", "294277-01-01T00:00:00"]
        {
            assert!(since_epoch(wrong, Microseconds).is_err(), "{wrong}");
        }
    }
}
