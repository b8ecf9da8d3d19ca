//! Lines and what stands on them: requests in, answers and notifications out. No I/O.

use std::{borrow::Cow, fmt};

use bytes::{Buf, Bytes, BytesMut};
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Number, value::RawValue};
use tokio_util::codec::Decoder;

use super::{ErrorObject, Kind};

/// The longest string that may be the id of a request, in bytes.
pub const MAX_ID: usize = 256;

/// The id of a request: a string or a number, echoed in its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Id {
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
}

impl From<u64> for Id {
    fn from(n: u64) -> Self {
        Self::Number(n.into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// A request, or a notification when it has no id.
#[derive(Debug)]
pub struct Request<'a> {
    /// What the answer carries; absent when none is wanted.
    pub id: Option<Id>,
    /// The method.
    pub method: Cow<'a, str>,
    /// The parameters, not looked at yet.
    pub params: Option<&'a RawValue>,
}

/// A line that is no request: what to answer, and to which id where one could be read.
#[derive(Debug)]
pub struct Refusal {
    /// The id of the answer; null on the wire when absent.
    pub id: Option<Id>,
    /// The answer.
    pub error: ErrorObject,
}

impl<'a> Request<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// What to answer when the line is not a request.
    pub fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let refuse = |id, kind, message: String| Err(Refusal { id, error: ErrorObject::new(kind, message) });
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(error) => {
                return refuse(None, Kind::ParseError, format!("the line is not UTF-8 at byte {}", error.valid_up_to()));
            }
        };
        let envelope = match serde_json::from_str::<Envelope<'_>>(text) {
            Ok(envelope) => envelope,
            Err(error) if error.is_data() => {
                return match serde_json::from_str::<IgnoredAny>(text) {
                    Ok(_) if text.trim_start().starts_with('[') => {
                        refuse(None, Kind::InvalidRequest, "batches are not served; send one request per line".into())
                    }
                    Ok(_) => refuse(None, Kind::InvalidRequest, "a request is a JSON object".into()),
                    Err(error) => refuse(None, Kind::ParseError, format!("the line is not JSON: {error}")),
                };
            }
            Err(error) => return refuse(None, Kind::ParseError, format!("the line is not JSON: {error}")),
        };
        envelope.check()
    }

    /// The parameters as `T`; none at all read like `{}`.
    ///
    /// # Errors
    /// [`Kind::InvalidParams`] that names the parameter.
    pub fn params<T: Deserialize<'a>>(&self) -> Result<T, ErrorObject> {
        let text = self.params.map_or("{}", RawValue::get);
        if !text.starts_with('{') {
            return Err(ErrorObject::new(
                Kind::InvalidParams,
                format!("{} takes its parameters by name, as a JSON object", self.method),
            ));
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| wrong_param(&self.method, &error))
    }
}

/// Serde's words in the protocol's: parameters instead of fields, no position in a line nobody sees.
fn wrong_param(method: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> ErrorObject {
    let said = error.inner().to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(head, _)| head).replacen(" field `", " parameter `", 1);
    let named = said.contains(" parameter `").then(|| said.split('`').nth(1)).flatten();
    let path = error.path().to_string();
    let said = if named.is_none() && path != "." { format!("{path}: {said}") } else { said.clone() };
    let param = named.map_or(path, str::to_owned);
    ErrorObject::new(Kind::InvalidParams, format!("{method}: {said}")).with("param", param)
}

/// The members of a request before any is judged, so that an answer has its id even when others are wrong.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    wrong: Option<String>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a request object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut envelope = Envelope::default();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let slot = match &*name {
                        "jsonrpc" => &mut envelope.jsonrpc,
                        "id" => &mut envelope.id,
                        "method" => &mut envelope.method,
                        "params" => &mut envelope.params,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            let name: String = name.chars().take(64).collect();
                            envelope.wrong.get_or_insert_with(|| format!("a request has no member {name:?}"));
                            continue;
                        }
                    };
                    if slot.replace(map.next_value()?).is_some() {
                        envelope.wrong.get_or_insert_with(|| format!("the member {name:?} stands twice"));
                    }
                }
                Ok(envelope)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'a> Envelope<'a> {
    fn check(self) -> Result<Request<'a>, Refusal> {
        let mut wrong = self.wrong;
        let id = match self.id.map(|raw| serde_json::from_str::<Id>(raw.get())) {
            None => None,
            Some(Ok(Id::Text(text))) if text.len() > MAX_ID => {
                wrong.get_or_insert_with(|| format!("the id is longer than {MAX_ID} bytes"));
                None
            }
            Some(Ok(id)) => Some(id),
            Some(Err(_)) => {
                wrong.get_or_insert_with(|| "the id is a string or a number".into());
                None
            }
        };
        let method = self.method.and_then(|raw| serde_json::from_str::<Text<'a>>(raw.get()).ok());
        if self.jsonrpc.map(RawValue::get) != Some("\"2.0\"") {
            wrong.get_or_insert_with(|| "the member \"jsonrpc\" must be \"2.0\"".into());
        }
        let wrong = match (wrong, method) {
            (None, Some(Text(method))) => return Ok(Request { id, method, params: self.params }),
            (Some(wrong), _) => wrong,
            (None, None) => "the member \"method\" must be a string".into(),
        };
        Err(Refusal { id, error: ErrorObject::new(Kind::InvalidRequest, wrong) })
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Serialize)]
struct Outgoing<'a, R: Serialize, P: Serialize> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Option<&'a Id>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ErrorObject>,
}

/// A request as a line, end included; a notification when `id` is absent.
///
/// # Errors
/// When `params` cannot be JSON.
pub fn request(id: Option<&Id>, method: &str, params: impl Serialize) -> serde_json::Result<Bytes> {
    let id = id.map(Some);
    line(&Outgoing { jsonrpc: "2.0", id, method: Some(method), params: Some(params), result: None::<()>, error: None })
}

/// An answer that carries a result, end included.
///
/// # Errors
/// When `result` cannot be JSON.
pub fn success(id: &Id, result: impl Serialize) -> serde_json::Result<Bytes> {
    let id = Some(Some(id));
    line(&Outgoing { jsonrpc: "2.0", id, method: None, params: None::<()>, result: Some(result), error: None })
}

/// An answer that carries an error, end included; its id is null when absent.
pub fn failure(id: Option<&Id>, error: &ErrorObject) -> Bytes {
    let id = Some(id);
    line(&Outgoing { jsonrpc: "2.0", id, method: None, params: None::<()>, result: None::<()>, error: Some(error) })
        // Maps of strings are always JSON; the constant keeps the promise of one answer per line all the same.
        .unwrap_or(Bytes::from_static(
            b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32603,\"message\":\"internal\"}}\n",
        ))
}

fn line(message: &impl Serialize) -> serde_json::Result<Bytes> {
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    Ok(text.into())
}

/// What a daemon says: an answer, or a notification.
#[derive(Debug, Deserialize)]
pub struct Incoming {
    /// The id of an answer.
    #[serde(default)]
    pub id: Option<Id>,
    /// The method of a notification.
    #[serde(default)]
    pub method: Option<String>,
    /// The parameters of a notification.
    #[serde(default)]
    pub params: serde_json::Value,
    /// The result of an answer.
    #[serde(default)]
    pub result: serde_json::Value,
    /// The error of an answer.
    #[serde(default)]
    pub error: Option<ErrorObject>,
}

/// Splits a stream of bytes into lines of bounded length. What stands after the last line end is no
/// line: it was cut off in the middle and is dropped.
#[derive(Debug)]
pub struct LineDecoder {
    max: usize,
    searched: usize,
}

/// What a [`LineDecoder`] finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line without its end.
    Whole(Bytes),
    /// More than the limit with no line end. The stream cannot be read any further.
    TooLong,
}

impl LineDecoder {
    /// Lines of at most `max` bytes, their end not counted.
    pub const fn new(max: usize) -> Self {
        Self { max, searched: 0 }
    }
}

impl Decoder for LineDecoder {
    type Item = Line;
    type Error = std::io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> std::io::Result<Option<Line>> {
        let end = buffer[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
        match end {
            Some(end) if end <= self.max => {
                self.searched = 0;
                let line = buffer.split_to(end).freeze();
                buffer.advance(1);
                Ok(Some(Line::Whole(line)))
            }
            None if buffer.len() <= self.max => {
                self.searched = buffer.len();
                Ok(None)
            }
            _ => {
                self.searched = 0;
                buffer.clear();
                Ok(Some(Line::TooLong))
            }
        }
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> std::io::Result<Option<Line>> {
        let line = self.decode(buffer)?;
        if line.is_none() {
            buffer.clear();
            self.searched = 0;
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{LockAcquire, NoParams};

    fn refused(line: &str) -> (Option<Id>, Kind, String) {
        let refusal = Request::parse(line.as_bytes()).unwrap_err();
        (refusal.id, refusal.error.kind().unwrap(), refusal.error.message)
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_id_where_it_has_one() {
        let deep = "[".repeat(100_000);
        for (line, id, kind) in [
            ("", None, Kind::ParseError),
            ("{", None, Kind::ParseError),
            ("[1,", None, Kind::ParseError),
            (&deep, None, Kind::ParseError),
            (r#"{"jsonrpc":"2.0","id":1e999,"method":"ping"}"#, None, Kind::InvalidRequest),
            ("[]", None, Kind::InvalidRequest),
            (r#" [{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, None, Kind::InvalidRequest),
            ("7", None, Kind::InvalidRequest),
            ("null", None, Kind::InvalidRequest),
            ("{}", None, Kind::InvalidRequest),
            (r#"{"id":1,"method":"ping"}"#, Some(1.into()), Kind::InvalidRequest),
            (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, Some(1.into()), Kind::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, None, Kind::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, None, Kind::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":"x","method":7}"#, Some(Id::Text("x".into())), Kind::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Some(1.into()), Kind::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, Some(2.into()), Kind::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","extra":2}"#, Some(1.into()), Kind::InvalidRequest),
        ] {
            let (found_id, found_kind, message) = refused(line);
            assert_eq!((found_id, found_kind), (id, kind), "{line:.80}: {message}");
        }
        assert!(
            Request::parse(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}").unwrap_err().error.message.contains("UTF-8")
        );
    }

    #[test]
    fn an_id_is_echoed_as_the_number_it_is() {
        for n in 1..1_000 {
            let number = f64::from(n).powf(9.7) * 1e3;
            let line = format!(r#"{{"jsonrpc":"2.0","id":{number:e},"method":"ping"}}"#);
            let id = Request::parse(line.as_bytes()).unwrap().id.unwrap();
            assert_eq!(id.to_string().parse(), Ok(number));
        }
    }

    #[test]
    fn parameters_are_refused_by_name() {
        let params = |params: &str| {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"lock.acquire","params":{params}}}"#);
            let request = Request::parse(line.as_bytes()).unwrap();
            let error = request.params::<LockAcquire>().unwrap_err();
            assert_eq!(error.kind(), Some(Kind::InvalidParams));
            (error.data.get("param").and_then(|p| p.as_str()).unwrap_or("").to_owned(), error.message)
        };
        for (given, named, said) in [
            (r#"{"name":"a","wiat_ms":1}"#, "wiat_ms", "unknown parameter `wiat_ms`"),
            ("{}", "name", "missing parameter `name`"),
            (r#"{"name":"a","name":"b"}"#, "name", "duplicate parameter `name`"),
            (r#"{"name":"a","wait_ms":"1"}"#, "wait_ms", "wait_ms: invalid type"),
            (r#"{"name":"a","wait_ms":-1}"#, "wait_ms", "wait_ms: invalid value"),
            (r#"["a"]"#, "", "by name"),
            ("null", "", "by name"),
        ] {
            let (param, message) = params(given);
            assert_eq!(param, named, "{message}");
            assert!(message.contains(said) && !message.contains(" line "), "{message}");
        }
        let deep = format!(r#"{{"name":"a","deep":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(params(&deep).0, "deep");
        let none = Request::parse(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).unwrap();
        assert!(none.params::<NoParams>().is_ok());
    }

    #[test]
    fn lines_are_bounded_and_the_last_needs_its_end() {
        let mut decoder = LineDecoder::new(4);
        let mut buffer = BytesMut::from(&b"ab\n\nabcd\nabcde\n"[..]);
        for expected in ["ab", "", "abcd"] {
            assert_eq!(decoder.decode(&mut buffer).unwrap(), Some(Line::Whole(expected.into())));
        }
        assert_eq!(decoder.decode(&mut buffer).unwrap(), Some(Line::TooLong));
        let mut cut = BytesMut::from(&b"abc"[..]);
        assert_eq!(decoder.decode(&mut cut).unwrap(), None);
        assert_eq!(decoder.decode_eof(&mut cut).unwrap(), None);
        let mut endless = BytesMut::from(&b"abcde"[..]);
        assert_eq!(decoder.decode(&mut endless).unwrap(), Some(Line::TooLong));
    }

    #[test]
    fn answers_and_notifications_are_single_lines() {
        let id = Id::Text("a\nb".into());
        let answer = success(&id, NoParams {}).unwrap();
        assert_eq!(answer, &b"{\"jsonrpc\":\"2.0\",\"id\":\"a\\nb\",\"result\":{}}\n"[..]);
        let error = failure(None, &ErrorObject::new(Kind::ParseError, "m"));
        assert!(error.starts_with(b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,"));
        let notice = request(None, "ping", NoParams {}).unwrap();
        assert_eq!(notice, &b"{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"params\":{}}\n"[..]);
    }
}
