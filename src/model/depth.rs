//! How deep JSON may nest. What a worker accepts it wraps, stores and reads back, and JSON readers stop at 128 levels: so
//! what comes in from outside stops well before that.

use serde_json::Value;

/// The most arrays and objects that may lie inside one another in what a flow passes on: what a template renders to, a
/// stored value of state.
pub const MAX_DEPTH: usize = 64;

/// The same for the body of a message: it leaves a flow some levels to put around what came.
pub const MAX_BODY_DEPTH: usize = 60;

/// The byte of a JSON text at which it goes deeper than so many levels, if it does.
pub fn too_deep_at(json: &[u8], levels: usize) -> Option<usize> {
    // Most texts have too few brackets, which is found out many bytes at a time.
    memchr::memchr2_iter(b'[', b'{', json).nth(levels)?;
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > levels {
                    return Some(at);
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Whether a value goes deeper than [`MAX_DEPTH`].
pub fn is_too_deep(value: &Value) -> bool {
    fn exceeds(value: &Value, levels: usize) -> bool {
        match value {
            Value::Array(items) => {
                levels == 0 || items.iter().any(|item| exceeds(item, levels - 1))
            }
            Value::Object(fields) => {
                levels == 0 || fields.values().any(|value| exceeds(value, levels - 1))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    exceeds(value, MAX_DEPTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_brackets_outside_of_texts() {
        #[track_caller]
        fn check(json: &str, at: Option<usize>) {
            assert_eq!(too_deep_at(json.as_bytes(), MAX_DEPTH), at);
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(is_too_deep(&value), at.is_some());
        }
        let arrays = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let objects = |levels: usize| r#"{"a":"#.repeat(levels) + "1" + &"}".repeat(levels);
        check(&arrays(MAX_DEPTH), None);
        check(&arrays(MAX_DEPTH + 1), Some(MAX_DEPTH));
        check(&objects(MAX_DEPTH), None);
        check(&objects(MAX_DEPTH + 1), Some(5 * MAX_DEPTH));
        check(
            &format!(r#"["{}", "\"[", {}]"#, "[".repeat(99), arrays(9)),
            None,
        );
        check(&format!("[{}]", "[[]],".repeat(99) + "1"), None);
        assert_eq!(too_deep_at(b"]]]][", 1), None);
    }
}
