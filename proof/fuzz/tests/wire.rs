//! The daemon's wire: lines, requests, parameters, answers.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Debug;

use bolero::check;
use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value as Json, json};
use tenure_fuzz::Corpus;
use tenure_sidecar::protocol::{
    Cancel, ElectionCampaign, ElectionName, ElectionProclaim, ElectionTransfer, ErrorObject, Event, Hello, Id, KvDelete, KvGet,
    KvHistory, KvKeys, KvPut, KvUpdate, KvWatch, LeaseNotice, LeaseRef, LockAcquire, LockBreak, LockGet, LockList, MemberJoin,
    MemberList, MemberUpdate, MemberWatchParams, NoParams, SubscriptionCancel,
    frame::{self, Incoming, Line, LineDecoder, MAX_ID, Refusal, Request},
    value,
};
use tokio_util::codec::Decoder;

/// The lines of `stream`, in which at most `max` bytes stand between two ends, worked out at once.
fn split(stream: &[u8], max: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rest = stream;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n').filter(|end| *end <= max) {
        lines.push(Line::Whole(rest[..end].to_vec().into()));
        rest = &rest[end + 1..];
    }
    if rest.len() > max {
        lines.push(Line::TooLong);
    }
    lines
}

/// The first byte says how long a line may be, the second how much comes at once.
#[test]
fn lines() {
    let corpus = Corpus::of("lines");
    check!(name = "lines").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            let [max, step, stream @ ..] = input else { return };
            let (max, step) = (usize::from(*max), usize::from(*step) + 1);
            let (mut decoder, mut buffer, mut found) = (LineDecoder::new(max), BytesMut::new(), Vec::new());
            'stream: for piece in stream.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(line) = decoder.decode(&mut buffer).unwrap() {
                    let ends = line == Line::TooLong;
                    found.push(line);
                    if ends {
                        break 'stream;
                    }
                }
                assert!(buffer.len() <= max, "{} bytes are kept", buffer.len());
            }
            assert_eq!(found, split(stream, max));
            if found.last() != Some(&Line::TooLong) {
                assert_eq!(decoder.decode_eof(&mut buffer).unwrap(), None, "a line that was cut off is none");
            }
        });
    });
}

/// An error as clients may rely on it.
fn is_proper(error: &ErrorObject, kinds: &[&str]) {
    let kind = error.kind().unwrap();
    assert!(kinds.contains(&kind.as_str()) && error.code == kind.code(), "{error:?}");
    assert!(!error.message.is_empty() && error.data["retryable"] == kind.retryable(), "{error:?}");
}

/// An answer is one line, and says what it is to say.
fn is_answered(id: Option<&Id>, error: &ErrorObject) {
    let line = frame::failure(id, error);
    let text = line.strip_suffix(b"\n").unwrap();
    assert!(!text.contains(&b'\n'));
    let answer: Incoming = serde_json::from_slice(text).unwrap();
    assert_eq!((answer.id.as_ref(), answer.error.as_ref(), answer.method), (id, Some(error), None));
}

/// Parameters that are read are written so that the same are read; others are refused by name.
fn params<T: DeserializeOwned + Serialize + PartialEq + Debug>(request: &Request<'_>) {
    match request.params::<T>() {
        Ok(params) => {
            let line = frame::request(request.id.as_ref(), &request.method, &params).unwrap();
            let again = Request::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
            assert_eq!((&again.id, &again.method), (&request.id, &request.method));
            assert_eq!(again.params::<T>().unwrap(), params);
            // Nothing that was given is lost. Absent, null and an empty list are the same, but for the one method below.
            let json = |request: &Request<'_>| request.params.map(|params| serde_json::from_str::<Json>(params.get()).unwrap());
            assert_eq!(json(&again).map(without_nulls), Some(json(request).map_or_else(|| json!({}), without_nulls)));
        }
        Err(error) => {
            is_proper(&error, &["invalid_params"]);
            is_answered(request.id.as_ref(), &error);
        }
    }
}

fn without_nulls(json: Json) -> Json {
    match json {
        Json::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null() && *value != json!([]));
            kept.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Json::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// An update tells what is to be cleared from what is to stay.
fn clears(request: &Request<'_>) {
    let (Ok(update), Some(given)) = (request.params::<MemberUpdate>(), request.params) else { return };
    let given: Json = serde_json::from_str(given.get()).unwrap();
    assert_eq!((update.address == Some(None), update.zone == Some(None)), (is_null(&given, "address"), is_null(&given, "zone")));
}

fn is_null(json: &Json, name: &str) -> bool {
    json.get(name).is_some_and(Json::is_null)
}

#[test]
fn request() {
    let corpus = Corpus::of("request");
    check!(name = "request").for_each(|input: &[u8]| {
        corpus.each(input, |line| {
            let json = serde_json::from_slice::<Json>(line).ok();
            match Request::parse(line) {
                Ok(request) => {
                    // JSON that is read whole is read alike; some, such as what is very deep, is not read whole.
                    if let Some(json) = json {
                        let members = json.as_object().unwrap();
                        assert_eq!((&members["jsonrpc"], &members["method"]), (&"2.0".into(), &(&*request.method).into()));
                        assert_eq!(members.get("id"), request.id.as_ref().map(|id| serde_json::to_value(id).unwrap()).as_ref());
                        let params = request.params.map(|params| serde_json::from_str::<Json>(params.get()).unwrap());
                        assert_eq!(members.get("params"), params.as_ref());
                        assert!(members.keys().all(|name| ["jsonrpc", "id", "method", "params"].contains(&name.as_str())));
                    }
                    if let Some(Id::Text(text)) = &request.id {
                        assert!(text.len() <= MAX_ID);
                    }
                    for check in [
                        params::<NoParams>,
                        params::<Hello>,
                        params::<Cancel>,
                        params::<LeaseRef>,
                        params::<LockAcquire>,
                        params::<LockGet>,
                        params::<LockList>,
                        params::<LockBreak>,
                        params::<ElectionCampaign>,
                        params::<ElectionProclaim>,
                        params::<ElectionTransfer>,
                        params::<ElectionName>,
                        params::<MemberJoin>,
                        params::<MemberUpdate>,
                        params::<MemberList>,
                        params::<MemberWatchParams>,
                        params::<KvGet>,
                        params::<KvPut>,
                        params::<KvUpdate>,
                        params::<KvDelete>,
                        params::<KvKeys>,
                        params::<KvHistory>,
                        params::<KvWatch>,
                        params::<SubscriptionCancel>,
                    ] {
                        check(&request);
                    }
                    clears(&request);
                }
                Err(Refusal { id, error }) => {
                    is_proper(&error, if json.is_some() { &["invalid_request"] } else { &["parse_error", "invalid_request"] });
                    is_answered(id.as_ref(), &error);
                }
            }
        });
    });
}

/// What a client reads.
#[test]
fn answer() {
    let corpus = Corpus::of("answer");
    check!(name = "answer").for_each(|input: &[u8]| {
        corpus.each(input, |line| {
            let Ok(said) = serde_json::from_slice::<Incoming>(line) else { return };
            if let Some(error) = &said.error {
                let again: ErrorObject = serde_json::from_value(serde_json::to_value(error).unwrap()).unwrap();
                assert_eq!((&again, again.kind(), again.retryable()), (error, error.kind(), error.retryable()));
            }
            if let Ok(event) = serde_json::from_value::<Event>(said.params.clone()) {
                assert_eq!(serde_json::from_value::<Event>(serde_json::to_value(&event).unwrap()).unwrap(), event);
            }
            if let Ok(notice) = serde_json::from_value::<LeaseNotice>(said.params) {
                assert_eq!(serde_json::from_value::<LeaseNotice>(serde_json::to_value(&notice).unwrap()).unwrap(), notice);
            }
        });
    });
}

#[test]
fn wire_value() {
    let corpus = Corpus::of("wire_value");
    check!(name = "wire_value").for_each(|input: &[u8]| {
        corpus.each(input, |bytes| {
            let (text, base64) = value::encode(bytes);
            assert!(text.is_some() != base64.is_some());
            assert_eq!(value::decode(text, base64).unwrap(), bytes);
            if let Ok(text) = std::str::from_utf8(bytes) {
                match value::decode(None, Some(text.to_owned())) {
                    Ok(decoded) => assert!(decoded.len() <= text.len()),
                    Err(error) => is_proper(&error, &["invalid_params"]),
                }
            }
        });
    });
}
