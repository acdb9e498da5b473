//! Brackets inside brackets: the reader underneath looks at each open one again at every token, so a few thousand of them
//! cost it minutes before it says that they are too many.

/// More than any document has, and few enough to be read in no time.
const MAX_OPEN: usize = 256;

/// Whether more brackets are open at once than a document can have. Quotes and comments are not told apart: their brackets
/// are closed as well, or are few.
pub fn is_too_deep(text: &str) -> bool {
    let mut open = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_OPEN
    })
}

/// What to say of it.
pub const TOO_DEEP: &str = "brackets nest too deep in it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_one_writes_is_too_deep() {
        assert!(!is_too_deep(&"{{a}} [b] }\n".repeat(10_000)));
        assert!(!is_too_deep(&"[".repeat(MAX_OPEN)));
        assert!(is_too_deep(&"{".repeat(MAX_OPEN + 1)));
    }
}
