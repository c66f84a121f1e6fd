//! JSON and comparison, for values of one's own and received ones alike.

use std::fmt::{self, Display, Formatter, Write};

use rkyv::{string::ArchivedString, tuple::ArchivedTuple2};

use super::{ArchivedArgs, ArchivedValue, Args, Value};

/// What both kinds of values are.
trait Node: Sized {
    type Entry;
    fn kind(&self) -> Kind<'_, Self>;
    fn entry(entry: &Self::Entry) -> (&str, &Self);
}

enum Kind<'a, N: Node> {
    Null,
    Bool(bool),
    Whole(i128),
    F64(f64),
    String(&'a str),
    Bytes(&'a [u8]),
    Array(&'a [N]),
    Map(&'a [N::Entry]),
}

impl Node for Value {
    type Entry = (String, Value);

    fn kind(&self) -> Kind<'_, Value> {
        match self {
            Value::Null => Kind::Null,
            Value::Bool(truth) => Kind::Bool(*truth),
            Value::I64(number) => Kind::Whole((*number).into()),
            Value::U64(number) => Kind::Whole((*number).into()),
            Value::F64(number) => Kind::F64(*number),
            Value::String(text) => Kind::String(text),
            Value::Bytes(bytes) => Kind::Bytes(bytes),
            Value::Array(elements) => Kind::Array(elements),
            Value::Map(entries) => Kind::Map(entries),
        }
    }

    fn entry((name, value): &Self::Entry) -> (&str, &Value) {
        (name, value)
    }
}

impl Node for ArchivedValue {
    type Entry = ArchivedTuple2<ArchivedString, ArchivedValue>;

    fn kind(&self) -> Kind<'_, ArchivedValue> {
        match self {
            ArchivedValue::Null => Kind::Null,
            ArchivedValue::Bool(truth) => Kind::Bool(*truth),
            ArchivedValue::I64(number) => Kind::Whole(number.to_native().into()),
            ArchivedValue::U64(number) => Kind::Whole(number.to_native().into()),
            ArchivedValue::F64(number) => Kind::F64(number.to_native()),
            ArchivedValue::String(text) => Kind::String(text),
            ArchivedValue::Bytes(bytes) => Kind::Bytes(bytes),
            ArchivedValue::Array(elements) => Kind::Array(elements),
            ArchivedValue::Map(entries) => Kind::Map(entries),
        }
    }

    fn entry(entry: &Self::Entry) -> (&str, &ArchivedValue) {
        (&entry.0, &entry.1)
    }
}

#[allow(private_bounds)]
pub(super) fn same<A: Node, B: Node>(a: &A, b: &B) -> bool {
    match (a.kind(), b.kind()) {
        (Kind::Null, Kind::Null) => true,
        (Kind::Bool(a), Kind::Bool(b)) => a == b,
        (Kind::Whole(a), Kind::Whole(b)) => a == b,
        (Kind::F64(a), Kind::F64(b)) => a == b,
        (Kind::String(a), Kind::String(b)) => a == b,
        (Kind::Bytes(a), Kind::Bytes(b)) => a == b,
        (Kind::Array(a), Kind::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Kind::Map(a), Kind::Map(b)) => {
            let entries = || a.iter().map(A::entry).zip(b.iter().map(B::entry));
            a.len() == b.len() && entries().all(|((a, x), (b, y))| a == b && same(x, y))
        }
        _ => false,
    }
}

fn write_node<N: Node>(node: &N, f: &mut Formatter<'_>) -> fmt::Result {
    match node.kind() {
        Kind::Null => f.write_str("null"),
        Kind::Bool(truth) => write!(f, "{truth}"),
        Kind::Whole(number) => write!(f, "{number}"),
        // Debug keeps a fraction or exponent, so that a float stays one.
        Kind::F64(number) if number.is_finite() => write!(f, "{number:?}"),
        Kind::F64(_) => f.write_str("null"),
        Kind::String(text) => write_string(text, f),
        Kind::Bytes(bytes) => write_bytes(bytes, f),
        Kind::Array(elements) => write_list(elements, f),
        Kind::Map(entries) => {
            f.write_char('{')?;
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    f.write_char(',')?;
                }
                let (name, value) = N::entry(entry);
                write_string(name, f)?;
                f.write_char(':')?;
                write_node(value, f)?;
            }
            f.write_char('}')
        }
    }
}

fn write_list<N: Node>(elements: &[N], f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char('[')?;
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            f.write_char(',')?;
        }
        write_node(element, f)?;
    }
    f.write_char(']')
}

fn write_string(text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f | 0x7f => "",
            _ => continue,
        };
        f.write_str(text.get(plain..index).unwrap_or_default())?;
        plain = index + 1;
        if escape.is_empty() {
            write!(f, "\\u{byte:04x}")?;
        } else {
            f.write_str(escape)?;
        }
    }
    f.write_str(text.get(plain..).unwrap_or_default())?;
    f.write_char('"')
}

fn write_bytes(bytes: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    f.write_str("{\"$bytes\":\"")?;
    for group in bytes.chunks(3) {
        let mut bits = 0_u32;
        for index in 0..3 {
            bits = bits << 8 | u32::from(group.get(index).copied().unwrap_or(0));
        }
        for index in 0..4 {
            let digit = (bits >> (18 - 6 * index) & 63) as usize;
            f.write_char(if index <= group.len() { char::from(DIGITS[digit]) } else { '=' })?;
        }
    }
    f.write_str("\"}")
}

/// JSON, on one line.
impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_node(self, f)
    }
}

/// JSON, on one line.
impl Display for ArchivedValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_node(self, f)
    }
}

/// A JSON array, on one line.
impl Display for Args {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_list(self, f)
    }
}

/// A JSON array, on one line.
impl Display for ArchivedArgs {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_list(self.as_slice(), f)
    }
}

impl fmt::Debug for ArchivedValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl fmt::Debug for ArchivedArgs {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_base64() {
        let base64 = |bytes: &[u8]| Value::from(bytes).to_string();
        assert_eq!(base64(b""), r#"{"$bytes":""}"#);
        assert_eq!(base64(b"f"), r#"{"$bytes":"Zg=="}"#);
        assert_eq!(base64(b"fo"), r#"{"$bytes":"Zm8="}"#);
        assert_eq!(base64(b"foobar"), r#"{"$bytes":"Zm9vYmFy"}"#);
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), r#"{"$bytes":"+//+"}"#);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(Value::from("a\"b\\\n\u{1}\u{7f}ä€").to_string(), "\"a\\\"b\\\\\\n\\u0001\\u007fä€\"");
    }

    #[test]
    fn numbers_keep_their_kind() {
        assert_eq!(Value::from(1.0).to_string(), "1.0");
        assert_eq!(Value::from(1).to_string(), "1");
        assert_eq!(Value::from(u64::MAX).to_string(), "18446744073709551615");
        assert_eq!(Value::from(f64::NAN).to_string(), "null");
        assert_eq!(Value::from(1e300).to_string(), "1e300");
    }

    #[test]
    fn a_whole_number_equals_itself_in_another_variant_and_a_float_does_not() {
        assert_eq!(Value::U64(5), Value::I64(5));
        assert_ne!(Value::U64(u64::MAX), Value::I64(-1));
        assert_ne!(Value::F64(5.0), Value::I64(5));
    }
}
