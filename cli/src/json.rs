//! Arguments as a shell writes them. The way back is `Display` of the library's dynamic values, which is JSON.

use memit::{Args, Value};
use serde_json::Value as Json;

/// The key under which bytes stand in JSON, in base64, alone in an object.
const BYTES: &str = "$bytes";

/// A line that is no array of arguments.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotArguments {
    #[error("expected a JSON array of arguments, found text that is not JSON ({0})")]
    Json(serde_json::Error),
    #[error("expected a JSON array of arguments, found {0}")]
    Kind(&'static str),
}

/// Each text that parses as JSON is that value, each other is a string.
pub(crate) fn arguments(texts: &[String]) -> Args {
    Args(texts.iter().map(|text| serde_json::from_str(text).map_or_else(|_| text.as_str().into(), value)).collect())
}

/// The arguments in a JSON array.
pub(crate) fn array(text: &[u8]) -> Result<Args, NotArguments> {
    match serde_json::from_slice(text).map_err(NotArguments::Json)? {
        Json::Array(elements) => Ok(Args(elements.into_iter().map(value).collect())),
        Json::Null => Err(NotArguments::Kind("null")),
        Json::Bool(_) => Err(NotArguments::Kind("a boolean")),
        Json::Number(_) => Err(NotArguments::Kind("a number")),
        Json::String(_) => Err(NotArguments::Kind("a string")),
        Json::Object(_) => Err(NotArguments::Kind("an object")),
    }
}

/// As deep as the JSON, whose depth the parser limits.
fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => truth.into(),
        Json::Number(number) => {
            let whole = number.as_i64().map(Value::from).or_else(|| number.as_u64().map(Value::from));
            whole.unwrap_or_else(|| number.as_f64().map_or(Value::Null, Value::from))
        }
        Json::String(text) => text.into(),
        Json::Array(elements) => Value::Array(elements.into_iter().map(value).collect()),
        Json::Object(members) => match members.get(BYTES).and_then(Json::as_str).and_then(base64) {
            Some(bytes) if members.len() == 1 => Value::Bytes(bytes),
            _ => Value::Map(members.into_iter().map(|(name, member)| (name, value(member))).collect()),
        },
    }
}

/// The bytes that `text` stands for, if it is padded base64 as RFC 4648 has it.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (groups, []) = text.as_bytes().as_chunks::<4>() else {
        return None;
    };
    let mut bytes = Vec::with_capacity(groups.len() * 3);
    for (index, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|&&digit| digit == b'=').count();
        if padding > 2 || padding > 0 && index + 1 < groups.len() {
            return None;
        }
        let mut bits = 0_u32;
        for &digit in &group[..4 - padding] {
            bits = bits << 6 | u32::from(sextet(digit)?);
        }
        bits <<= 6 * padding;
        let [_, all @ ..] = bits.to_be_bytes();
        let (kept, dropped) = all.split_at(3 - padding);
        if dropped.iter().any(|&byte| byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

const fn sextet(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use memit::args;

    use super::*;

    #[test]
    fn json_becomes_the_value_that_prints_as_it() {
        for text in [
            "[]",
            "[null,true,false,0,-1,9223372036854775807,-9223372036854775808,9223372036854775808,18446744073709551615]",
            "[0.5,-0.0,1e300,5e-324,1.0]",
            r#"["","ä€𝄞","a\"b\\c\nd",[[],[1,[2]]],{},{"b":{"z":1,"a":[]},"a":null}]"#,
            r#"[{"$bytes":""},{"$bytes":"Zg=="},{"$bytes":"Zm8="},{"$bytes":"Zm9vYmFy"},{"$bytes":"+//+"}]"#,
            r#"[{"$bytes":"no base64"},{"$bytes":5},{"$bytes":"Zg==","more":1}]"#,
        ] {
            assert_eq!(array(text.as_bytes()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn numbers_have_the_kind_that_holds_them() {
        let Args(values) = array(b"[1, 9223372036854775808, 1.0, 18446744073709551616]").unwrap();
        assert!(matches!(
            values[..],
            [Value::I64(1), Value::U64(0x8000_0000_0000_0000), Value::F64(1.0), Value::F64(_)]
        ));
    }

    #[test]
    fn every_byte_string_survives_base64() {
        for length in 0..=7 {
            for first in [0, 1, 0x3e, 0x7f, 0xfb, 0xff] {
                let bytes: Vec<u8> = (0..length).map(|index: u8| first ^ index.wrapping_mul(85)).collect();
                let printed = args![bytes.clone()].to_string();
                let Args(values) = array(printed.as_bytes()).unwrap();
                assert!(matches!(&values[..], [Value::Bytes(back)] if *back == bytes), "{printed}");
            }
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["Z", "Zg", "Zg=", "Zg==Zg==", "Z===", "====", "Zh==", "Zm9=", "Zm9v\n", "Zm-v", "=Zg="] {
            assert_eq!(base64(text), None, "{text}");
        }
    }

    #[test]
    fn arguments_that_do_not_parse_are_strings() {
        let texts = ["7", "\"7\"", "seven", "", " ", "{", "01", "NaN", "1 2", "True"].map(String::from);
        assert_eq!(arguments(&texts), args![7, "7", "seven", "", " ", "{", "01", "NaN", "1 2", "True"]);
    }

    #[test]
    fn a_line_that_is_no_array_says_what_it_is() {
        for (text, found) in [
            ("null", "found null"),
            ("true", "found a boolean"),
            ("1", "found a number"),
            ("\"x\"", "found a string"),
            ("{}", "found an object"),
            ("[1", "found text that is not JSON (EOF while parsing"),
            ("[1] [2]", "found text that is not JSON (trailing characters"),
            ("\u{feff}[]", "found text that is not JSON"),
        ] {
            let error = array(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("expected a JSON array of arguments, "), "{error}");
            assert!(error.contains(found), "{error}");
        }
    }

    #[test]
    fn depth_beyond_what_can_be_parsed_is_an_error_and_no_crash() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(array(deep.as_bytes()).is_err());
    }
}
