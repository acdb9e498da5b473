//! What components answer, and what it is as JSON.

use serde_json::{Map, Value, json};

/// The most levels that are read of an answer in CBOR.
const CBOR_LEVELS: usize = 128;
/// The code of a call that ended with `ok: false` and named none.
const FAILED: &str = "COMPONENT_INVOCATION_FAILED";

/// An answer before it is read.
#[derive(Debug)]
pub(in super::super) enum Raw {
    /// JSON, or else a text.
    Json(Vec<u8>),
    /// CBOR, or else a text.
    Cbor(Vec<u8>),
}

/// How a component ended.
#[derive(Debug)]
pub(in super::super) enum Output {
    /// With an answer.
    Answer(Raw),
    /// With an answer that says that it failed.
    Failure(Raw),
    /// With an error of its interface.
    Error {
        code: String,
        message: String,
        retryable: bool,
        backoff_ms: Option<u64>,
        details: Option<Raw>,
    },
}

impl Raw {
    fn len(&self) -> usize {
        let (Self::Json(bytes) | Self::Cbor(bytes)) = self;
        bytes.len()
    }

    fn into_value(self) -> Value {
        match self {
            Self::Json(bytes) if bytes.is_empty() => Value::Null,
            Self::Json(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|_| text(bytes)),
            Self::Cbor(bytes) if bytes.is_empty() => Value::Null,
            Self::Cbor(bytes) => from_cbor(&bytes).unwrap_or_else(|| {
                // What is no CBOR may be JSON.
                serde_json::from_slice(&bytes).unwrap_or_else(|_| text(bytes))
            }),
        }
    }
}

impl Output {
    /// Its size in bytes.
    pub(in super::super) fn len(&self) -> usize {
        match self {
            Self::Answer(raw) | Self::Failure(raw) => raw.len(),
            Self::Error {
                code,
                message,
                details,
                ..
            } => code.len() + message.len() + details.as_ref().map_or(0, Raw::len),
        }
    }

    /// The output as JSON; a failure is `{"ok": false, "error": {...}}`.
    pub(in super::super) fn into_value(self) -> Value {
        match self {
            Self::Answer(raw) => raw.into_value(),
            Self::Failure(raw) => {
                let message = raw.into_value().to_string();
                json!({"ok": false, "error": {"code": FAILED, "message": message, "retryable": false}})
            }
            Self::Error {
                code,
                message,
                retryable,
                backoff_ms,
                details,
            } => {
                let mut error = Map::new();
                error.insert("code".to_owned(), code.into());
                error.insert("message".to_owned(), message.into());
                error.insert("retryable".to_owned(), retryable.into());
                if let Some(ms) = backoff_ms {
                    error.insert("backoff_ms".to_owned(), ms.into());
                }
                if let Some(details) = details {
                    error.insert("details".to_owned(), details.into_value());
                }
                json!({"ok": false, "error": error})
            }
        }
    }
}

/// A value as CBOR.
pub(super) fn to_cbor<T: serde::Serialize>(value: &T) -> wasmtime::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes)?;
    Ok(bytes)
}

/// CBOR that has a meaning in JSON, with nothing behind it.
fn from_cbor(mut bytes: &[u8]) -> Option<Value> {
    let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, CBOR_LEVELS).ok()?;
    bytes.is_empty().then_some(value)
}

fn text(bytes: Vec<u8>) -> Value {
    let text = String::from_utf8(bytes);
    Value::String(
        text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_some_json() {
        #[track_caller]
        fn check(output: Output, expected: Value) {
            assert_eq!(output.into_value(), expected);
        }
        let json = |text: &str| Raw::Json(text.as_bytes().to_vec());
        let cbor = |value: &Value| Raw::Cbor(to_cbor(value).unwrap());
        check(Output::Answer(json("")), Value::Null);
        check(Output::Answer(json(r#"{"a":1}"#)), json!({"a": 1}));
        check(Output::Answer(json("no json")), json!("no json"));
        check(Output::Answer(Raw::Cbor(Vec::new())), Value::Null);
        let all = json!({"a": [1, -2, 3.5, "x", null, true, u64::MAX], "b": {}});
        check(Output::Answer(cbor(&all)), all);
        check(
            Output::Answer(Raw::Cbor(br#"{"a":1}"#.to_vec())),
            json!({"a": 1}),
        );
        check(Output::Answer(Raw::Cbor(b"plain".to_vec())), json!("plain"));
        check(
            Output::Answer(Raw::Cbor(b"\x41\xff".to_vec())),
            json!("A\u{fffd}"),
        );
        check(
            Output::Failure(cbor(&json!({"why": 1}))),
            json!({"ok": false, "error": {"code": FAILED, "message": r#"{"why":1}"#, "retryable": false}}),
        );
        check(
            Output::Error {
                code: "C".to_owned(),
                message: "m".to_owned(),
                retryable: true,
                backoff_ms: Some(5),
                details: Some(cbor(&json!([1]))),
            },
            json!({"ok": false, "error": {"code": "C", "message": "m", "retryable": true, "backoff_ms": 5, "details": [1]}}),
        );
    }
}
