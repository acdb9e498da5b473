//! Any text in a header, whose value is printable ASCII without blanks around it.

use std::borrow::Cow;
use std::fmt::Write;

/// The longest value that a text becomes, in bytes.
const MAX_LEN: usize = 4_096;

/// A text as the value of a header: each byte of its UTF-8 that is no printable ASCII, each `%`, and a blank at its beginning or
/// its end as `%` and two hexadecimal digits. None where that is longer than 4,096 bytes.
pub fn header_text(text: &str) -> Option<Cow<'_, str>> {
    if text.len() > MAX_LEN {
        return None;
    }
    let last = text.len().saturating_sub(1);
    let stays = |at: usize, byte: u8| match byte {
        b' ' => at != 0 && at != last,
        b'%' => false,
        byte => byte.is_ascii_graphic(),
    };
    let bytes = || text.bytes().enumerate();
    if bytes().all(|(at, byte)| stays(at, byte)) {
        return Some(Cow::Borrowed(text));
    }
    let mut value = String::with_capacity(text.len() + 16);
    for (at, byte) in bytes() {
        if stays(at, byte) {
            value.push(char::from(byte));
        } else {
            // Writing into a String does not fail.
            let _written = write!(value, "%{byte:02X}");
        }
    }
    (value.len() <= MAX_LEN).then_some(Cow::Owned(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, value: &str) {
        assert_eq!(header_text(text).as_deref(), Some(value));
    }

    #[test]
    fn what_a_header_cannot_carry_is_escaped_and_nothing_else() {
        check("m-1", "m-1");
        check("a b  c", "a b  c");
        check(" a ", "%20a%20");
        check(" ", "%20");
        check("", "");
        check("50%", "50%25");
        check("é/ü", "%C3%A9/%C3%BC");
        check("a\r\nb\tc\u{7f}", "a%0D%0Ab%09c%7F");
        check(&"x".repeat(MAX_LEN), &"x".repeat(MAX_LEN));
        assert_eq!(header_text(&"x".repeat(MAX_LEN + 1)), None);
        assert_eq!(header_text(&"é".repeat(MAX_LEN / 4)), None);
    }
}
