//! State as components see it, bytes, and as everything else does, JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The key under which bytes that are no text are kept, in Base64. The ecosystem's stores use the same.
const BYTES: &str = "$greentic_bytes_b64";

/// What is stored for these bytes: JSON as what it says, other text as a JSON string, anything else wrapped.
pub(super) fn from_bytes(bytes: &[u8]) -> Value {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return value;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({ BYTES: STANDARD.encode(bytes) }),
    }
}

/// The bytes that a component reads.
pub(super) fn to_bytes(value: &Value) -> Vec<u8> {
    if let Value::Object(fields) = value
        && fields.len() == 1
        && let Some(Value::String(encoded)) = fields.get(BYTES)
        && let Ok(bytes) = STANDARD.decode(encoded)
    {
        return bytes;
    }
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_stored_as_what_it_says_and_bytes_come_back_as_they_were() {
        #[track_caller]
        fn check(bytes: &[u8], value: Value, back: &[u8]) {
            assert_eq!(from_bytes(bytes), value);
            assert_eq!(to_bytes(&value), back);
        }
        check(br#"{"a":1}"#, json!({"a": 1}), br#"{"a":1}"#);
        check(b"[1, 2]", json!([1, 2]), b"[1,2]");
        check(b"plain", json!("plain"), b"\"plain\"");
        check(b"\xff\x00", json!({ BYTES: "/wA=" }), b"\xff\x00");
        check(b"", json!(""), b"\"\"");
        assert_eq!(
            to_bytes(&json!({ BYTES: "?" })),
            br#"{"$greentic_bytes_b64":"?"}"#
        );
    }
}
