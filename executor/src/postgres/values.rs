//! Values of the binary protocol as JSON, in the shapes of `results`.
//!
//! Pure. Numerics and times keep every digit. What has no place in a shape is a failure with the column's name, never a guess.

use std::net::{Ipv4Addr, Ipv6Addr};

use chrono::{Datelike, NaiveDate};
use serde_json::{Number, Value};
use tokio_postgres::types::{Kind, Type};

use crate::results::Shape;

/// How one type is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Codec {
    Bool,
    Int,
    Oid,
    Float,
    Numeric,
    Text,
    Void,
    Bytes,
    Bits,
    Date,
    Time,
    TimeTz,
    Timestamp { utc: bool },
    Interval,
    Uuid,
    Json { binary: bool },
    Inet { always_bits: bool },
    Mac,
    Array(Box<Codec>),
}

impl Codec {
    pub fn of(kind: &Type) -> Option<Codec> {
        if let Kind::Array(item) = kind.kind() {
            return match Codec::of(item)? {
                Codec::Array(_) => None,
                item => Some(Codec::Array(Box::new(item))),
            };
        }
        if let Kind::Domain(base) = kind.kind() {
            return Codec::of(base);
        }
        if let Kind::Enum(_) = kind.kind() {
            return Some(Codec::Text);
        }
        Some(match *kind {
            Type::BOOL => Codec::Bool,
            Type::INT2 | Type::INT4 | Type::INT8 => Codec::Int,
            Type::OID | Type::XID | Type::CID => Codec::Oid,
            Type::FLOAT4 | Type::FLOAT8 => Codec::Float,
            Type::NUMERIC => Codec::Numeric,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML | Type::CHAR => {
                Codec::Text
            }
            Type::VOID => Codec::Void,
            Type::BYTEA => Codec::Bytes,
            Type::BIT | Type::VARBIT => Codec::Bits,
            Type::DATE => Codec::Date,
            Type::TIME => Codec::Time,
            Type::TIMETZ => Codec::TimeTz,
            Type::TIMESTAMP => Codec::Timestamp { utc: false },
            Type::TIMESTAMPTZ => Codec::Timestamp { utc: true },
            Type::INTERVAL => Codec::Interval,
            Type::UUID => Codec::Uuid,
            Type::JSON => Codec::Json { binary: false },
            Type::JSONB => Codec::Json { binary: true },
            Type::INET => Codec::Inet { always_bits: false },
            Type::CIDR => Codec::Inet { always_bits: true },
            Type::MACADDR | Type::MACADDR8 => Codec::Mac,
            // A type of an extension, which is sent as text.
            _ if kind.name() == "citext" => Codec::Text,
            _ => return None,
        })
    }

    /// `modifier`: the type's, as the server says it with the column.
    pub fn shape(&self, modifier: i32) -> Shape {
        match self {
            Codec::Bool => Shape::Bool,
            Codec::Int | Codec::Oid => Shape::Int,
            Codec::Float => Shape::Float,
            Codec::Numeric => Shape::Decimal { scale: scale_of(modifier).and_then(|s| u8::try_from(s).ok()) },
            Codec::Bytes => Shape::Bytes,
            Codec::Date => Shape::Date,
            Codec::Timestamp { utc: false } => Shape::Timestamp,
            Codec::Timestamp { utc: true } => Shape::TimestampTz,
            Codec::Uuid => Shape::Uuid,
            Codec::Json { .. } => Shape::Json,
            Codec::Array(item) => Shape::Array(Box::new(item.shape(modifier))),
            _ => Shape::Text,
        }
    }

    /// Reads a value.
    pub fn read(&self, bytes: &[u8]) -> Result<Value, String> {
        let mut wire = Wire(bytes);
        Ok(match self {
            Codec::Bool => Value::Bool(wire.take::<1>()? != [0]),
            Codec::Int => Value::from(match bytes.len() {
                2 => i64::from(i16::from_be_bytes(wire.take()?)),
                4 => i64::from(wire.i32()?),
                _ => wire.i64()?,
            }),
            Codec::Oid => Value::from(u32::from_be_bytes(wire.take()?)),
            Codec::Float => match bytes.len() {
                4 => float(f64::from(f32::from_be_bytes(wire.take()?)), true),
                _ => float(f64::from_be_bytes(wire.take()?), false),
            },
            Codec::Numeric => Value::String(numeric(&mut wire)?),
            Codec::Text => Value::String(wire.text()?),
            Codec::Void => Value::String(String::new()),
            Codec::Bytes => Value::String(hex::encode(bytes)),
            Codec::Bits => {
                let bits = wire.i32()?.max(0) as usize;
                let digits = wire.0.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
                Value::String(digits.take(bits).map(|bit| if bit == 1 { '1' } else { '0' }).collect())
            }
            Codec::Date => Value::String(match wire.i32()? {
                i32::MAX => "infinity".to_owned(),
                i32::MIN => "-infinity".to_owned(),
                days => dated(i64::from(days), "")?,
            }),
            Codec::Time => Value::String(time_of_day(wire.i64()?)),
            Codec::TimeTz => {
                let time = time_of_day(wire.i64()?);
                let east = -wire.i32()?;
                let sign = if east < 0 { '-' } else { '+' };
                let minutes = east.abs() / 60;
                Value::String(format!("{time}{sign}{:02}:{:02}", minutes / 60, minutes % 60))
            }
            Codec::Timestamp { utc } => Value::String(match wire.i64()? {
                i64::MAX => "infinity".to_owned(),
                i64::MIN => "-infinity".to_owned(),
                micros => {
                    let zone = if *utc { "Z" } else { "" };
                    let time = time_of_day(micros.rem_euclid(DAY));
                    dated(micros.div_euclid(DAY), &format!("T{time}{zone}"))?
                }
            }),
            Codec::Interval => Value::String(interval(wire.i64()?, wire.i32()?, wire.i32()?)),
            Codec::Uuid => Value::String(uuid::Uuid::from_bytes(wire.take()?).to_string()),
            Codec::Json { binary } => {
                if *binary && wire.take::<1>()? != [1] {
                    return Err("an unknown version of jsonb".to_owned());
                }
                // A number beyond what JSON's readers hold stays the text it is.
                serde_json::from_slice(wire.0).or_else(|_| wire.text().map(Value::String))?
            }
            Codec::Inet { always_bits } => Value::String(address(&mut wire, *always_bits)?),
            Codec::Mac => {
                let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                Value::String(pairs.join(":"))
            }
            Codec::Array(item) => array(item, &mut wire)?,
        })
    }
}

const DAY: i64 = 86_400_000_000;

struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or("a value is too short")?;
        self.0 = rest;
        Ok(*first)
    }

    fn i16(&mut self) -> Result<i16, String> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, String> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, String> {
        self.take().map(i64::from_be_bytes)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (first, rest) = self.0.split_at_checked(length).ok_or("a value is too short")?;
        self.0 = rest;
        Ok(first)
    }

    fn text(&self) -> Result<String, String> {
        String::from_utf8(self.0.to_vec()).map_err(|_| "a text is no UTF-8".to_owned())
    }
}

fn float(number: f64, single: bool) -> Value {
    if number.is_nan() {
        return Value::from("NaN");
    }
    if number.is_infinite() {
        return Value::from(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    // The shortest digits of the shorter type, not those of its neighbour in the longer one.
    let number = if single { (number as f32).to_string().parse().unwrap_or(number) } else { number };
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// Digits behind the point; None: any.
fn scale_of(modifier: i32) -> Option<i32> {
    // The lower eleven bits, with sign.
    let packed = modifier.checked_sub(4).filter(|p| *p >= 0)?;
    Some(((packed & 0x7ff) ^ 1024) - 1024)
}

fn numeric(wire: &mut Wire<'_>) -> Result<String, String> {
    let (count, weight, sign, scale) = (wire.i16()?, wire.i16()?, wire.i16()? as u16, wire.i16()?.max(0) as usize);
    match sign {
        0xc000 => return Ok("NaN".to_owned()),
        0xd000 => return Ok("Infinity".to_owned()),
        0xf000 => return Ok("-Infinity".to_owned()),
        _ => {}
    }
    let mut groups = Vec::new();
    for _ in 0..count {
        groups.push(wire.i16()?);
    }
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let weight = i32::from(weight);
    let mut whole: String = (0..=weight).map(|at| format!("{:04}", group(at))).collect();
    whole = whole.trim_start_matches('0').to_owned();
    if whole.is_empty() {
        whole.push('0');
    }
    let behind_groups = i32::try_from(scale.div_ceil(4)).unwrap_or(0);
    let mut behind: String = (0..behind_groups).map(|at| format!("{:04}", group(weight + 1 + at))).collect();
    behind.truncate(scale);
    let sign = if sign == 0x4000 { "-" } else { "" };
    Ok(if behind.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{behind}") })
}

/// A day counted from 2000-01-01, with what follows it.
fn dated(days: i64, rest: &str) -> Result<String, String> {
    let far = || "a date is beyond what can be shown".to_owned();
    let epoch = NaiveDate::from_ymd_opt(2000, 1, 1).ok_or_else(far)?;
    let date = chrono::TimeDelta::try_days(days).and_then(|d| epoch.checked_add_signed(d)).ok_or_else(far)?;
    let (year, era) = if date.year() > 0 { (date.year(), "") } else { (1 - date.year(), " BC") };
    Ok(format!("{year:04}-{:02}-{:02}{rest}{era}", date.month(), date.day()))
}

fn time_of_day(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micros % 1_000_000 != 0 {
        text.push_str(format!(".{:06}", micros % 1_000_000).trim_end_matches('0'));
    }
    text
}

/// As the server's default style has it: `1 year 2 mons -3 days 04:05:06.7`.
fn interval(micros: i64, days: i32, months: i32) -> String {
    let mut parts = Vec::new();
    let mut negative_before = false;
    let mut part = |number: i32, one: &str, many: &str| {
        if number != 0 {
            let sign = if negative_before && number > 0 { "+" } else { "" };
            parts.push(format!("{sign}{number} {}", if number == 1 { one } else { many }));
            negative_before = number < 0;
        }
    };
    part(months / 12, "year", "years");
    part(months % 12, "mon", "mons");
    part(days, "day", "days");
    if micros != 0 || parts.is_empty() {
        let sign = match micros {
            m if m < 0 => "-",
            _ if negative_before => "+",
            _ => "",
        };
        // The most negative number has no positive one.
        let whole = micros.unsigned_abs();
        let time = time_of_day(i64::try_from(whole).unwrap_or(i64::MAX));
        parts.push(format!("{sign}{time}"));
    }
    parts.join(" ")
}

fn address(wire: &mut Wire<'_>, always_bits: bool) -> Result<String, String> {
    let [_, bits, _, length] = wire.take::<4>()?;
    let (text, all) = match length {
        4 => (Ipv4Addr::from(wire.take::<4>()?).to_string(), 32),
        16 => (Ipv6Addr::from(wire.take::<16>()?).to_string(), 128),
        _ => return Err("an unknown kind of address".to_owned()),
    };
    Ok(if always_bits || bits != all { format!("{text}/{bits}") } else { text })
}

fn array(item: &Codec, wire: &mut Wire<'_>) -> Result<Value, String> {
    let (dimensions, _, _) = (wire.i32()?, wire.i32()?, wire.i32()?);
    match dimensions {
        0 => return Ok(Value::Array(Vec::new())),
        1 => {}
        _ => return Err("an array has more than one dimension".to_owned()),
    }
    let (length, _) = (wire.i32()?, wire.i32()?);
    let mut items = Vec::new();
    for _ in 0..length {
        let size = wire.i32()?;
        items.push(match usize::try_from(size) {
            Ok(size) => item.read(wire.bytes(size)?)?,
            Err(_) => Value::Null,
        });
    }
    Ok(Value::Array(items))
}

/// The name of a type as SQL has it.
pub fn name_of(kind: &Type, modifier: i32) -> String {
    if let Kind::Array(item) = kind.kind() {
        return format!("{}[]", name_of(item, modifier));
    }
    let name = match *kind {
        Type::BOOL => "boolean",
        Type::INT2 => "smallint",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::FLOAT4 => "real",
        Type::FLOAT8 => "double precision",
        Type::VARCHAR => "character varying",
        Type::BPCHAR => "character",
        Type::TIMESTAMP => "timestamp without time zone",
        Type::TIMESTAMPTZ => "timestamp with time zone",
        Type::TIME => "time without time zone",
        Type::TIMETZ => "time with time zone",
        Type::VARBIT => "bit varying",
        _ => kind.name(),
    };
    match (kind, scale_of(modifier)) {
        (&Type::NUMERIC, Some(scale)) => format!("numeric({},{scale})", (modifier - 4) >> 16 & 0xffff),
        (&Type::VARCHAR | &Type::BPCHAR, Some(_)) => format!("{name}({})", modifier - 4),
        _ if kind.schema() != "pg_catalog" => format!("{}.{name}", kind.schema()),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_read_as_the_server_writes_them() {
        assert_eq!(interval(0, 0, 0), "00:00:00");
        assert_eq!(interval(14_706_700_000, 3, 14), "1 year 2 mons 3 days 04:05:06.7");
        assert_eq!(interval(1_000_000, -3, 1), "1 mon -3 days +00:00:01");
        assert_eq!(interval(-1, 0, -13), "-1 years -1 mons -00:00:00.000001");
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        for codec in [Codec::Bool, Codec::Int, Codec::Numeric, Codec::Interval, Codec::Array(Box::new(Codec::Int))] {
            assert!(codec.read(&[]).is_err(), "{codec:?}");
        }
        assert!(Codec::Array(Box::new(Codec::Int)).read(&[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 23]).is_err());
    }

    #[test]
    fn short_floats_keep_their_digits() {
        assert_eq!(Codec::Float.read(&0.1f32.to_be_bytes()).unwrap().to_string(), "0.1");
        assert_eq!(Codec::Float.read(&f64::NAN.to_be_bytes()).unwrap(), "NaN");
    }
}
