//! Values on the wire: a string where the bytes are UTF-8, base64 where they are not.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::{ErrorObject, Kind};

/// Bytes of escaped JSON beyond which a value that is UTF-8 is sent as base64 all the same: control
/// characters take six bytes each and would push the longest values over the limit of a line.
const MAX_ESCAPED: usize = 1_500_000;

/// The bytes of a request's `value` or `value_b64`, of which exactly one must be there.
///
/// # Errors
/// [`Kind::InvalidParams`] when both, neither, or no base64 is there.
pub fn decode(value: Option<String>, value_b64: Option<String>) -> Result<Bytes, ErrorObject> {
    match (value, value_b64) {
        (Some(text), None) => Ok(Bytes::from(text)),
        (None, Some(text)) => STANDARD.decode(text).map(Bytes::from).map_err(|error| {
            ErrorObject::new(Kind::InvalidParams, format!("value_b64 is not base64: {error}")).with("param", "value_b64")
        }),
        (Some(_), Some(_)) => {
            Err(ErrorObject::new(Kind::InvalidParams, "value and value_b64 exclude each other").with("param", "value_b64"))
        }
        (None, None) => {
            Err(ErrorObject::new(Kind::InvalidParams, "missing parameter `value` (or `value_b64` for bytes)")
                .with("param", "value"))
        }
    }
}

/// The bytes of `value` or `value_b64`, of which at most one is there; `None` without either.
///
/// # Errors
/// [`Kind::InvalidParams`] when both or no base64 is there.
pub fn decode_any(value: Option<String>, value_b64: Option<String>) -> Result<Option<Bytes>, ErrorObject> {
    if value.is_none() && value_b64.is_none() {
        return Ok(None);
    }
    decode(value, value_b64).map(Some)
}

/// `value` and `value_b64` for an answer: the first where the bytes are UTF-8, else the second.
pub fn encode(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) if escaped_len(text) <= MAX_ESCAPED => (Some(text.to_owned()), None),
        _ => (None, Some(STANDARD.encode(bytes))),
    }
}

fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_string_comes_back_and_fits_a_line() {
        for bytes in [&b""[..], b"text \xc3\xa4 \"quoted\"\n", b"\xff\x00", &[1; 1 << 20], &[b'"'; 1 << 20]] {
            let (value, value_b64) = encode(bytes);
            let line = serde_json::to_string(&(&value, &value_b64)).unwrap();
            assert!(line.len() < super::super::Limits::default().line_bytes, "{} bytes", line.len());
            assert_eq!(decode(value, value_b64).unwrap(), bytes);
        }
        assert!(encode(b"plain").0.is_some() && encode(b"\xff").1.is_some());
    }

    #[test]
    fn both_or_neither_is_refused() {
        for (value, value_b64) in [(None, None), (Some("a".into()), Some("YQ==".into())), (None, Some("?".into()))] {
            assert_eq!(decode(value, value_b64).unwrap_err().kind(), Some(Kind::InvalidParams));
        }
    }
}
