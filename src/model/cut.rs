//! Dead letters that would be larger than any message may be: as much of them as fits, and what the rest was.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Headers, header};

/// Headers that a cut dead letter keeps for as long as it can: they say what it is.
const OURS: [&str; 6] = [
    header::MSG_ID,
    header::ERROR_CODE,
    header::ERROR,
    header::ATTEMPTS,
    header::BODY_BYTES,
    header::BODY_SHA256,
];

/// Cuts a message down to so many bytes, headers included. Its headers then tell the size and the digest of the original
/// body, and how many headers had no room. None where not even the worker's own headers fit.
pub fn cut(headers: &Headers, body: &Bytes, limit: usize) -> Option<(Headers, Bytes)> {
    let mut all = headers.clone();
    all.push(header::BODY_BYTES, body.len().to_string());
    all.push(header::BODY_SHA256, hex::encode(Sha256::digest(body)));
    let headers = fitting(all, limit)?;
    let room = limit.checked_sub(headers.wire_len())?;
    let kept = body.slice(..body.len().min(room));
    Some((headers, kept))
}

/// Leaves headers out until the rest fits: the longest first, those that say what the message is not at all.
fn fitting(all: Headers, limit: usize) -> Option<Headers> {
    if all.wire_len() <= limit {
        return Some(all);
    }
    let is_ours = |name: &str| OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
    let mut pairs: Vec<(String, String)> = all
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut left_out = 0_usize;
    loop {
        let longest = pairs
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| !is_ours(name))
            .max_by_key(|(_, (name, value))| name.len() + value.len())
            .map(|(at, _)| at)?;
        pairs.remove(longest);
        left_out += 1;
        let mut rest: Headers = pairs.iter().cloned().collect();
        rest.push(header::HEADERS_CUT, left_out.to_string());
        if rest.wire_len() <= limit {
            return Some(rest);
        }
    }
}

/// Returns whether the body of a dead letter is only a part of the original's.
pub fn is_cut(headers: &Headers) -> bool {
    headers.get(header::BODY_BYTES).is_some() || headers.get(header::HEADERS_CUT).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(more: &str) -> Headers {
        let pairs = [
            (header::MSG_ID, "t:1:dead:1"),
            (header::ERROR_CODE, "panic"),
            ("X-Other", more),
        ];
        pairs.into_iter().collect()
    }

    #[test]
    fn as_much_of_the_body_as_fits_is_kept_and_the_rest_is_named() {
        let body = Bytes::from(vec![b'x'; 5_000]);
        let (headers, kept) = cut(&letter("kept"), &body, 1_000).unwrap();
        assert_eq!(headers.wire_len() + kept.len(), 1_000);
        assert_eq!(headers.get(header::BODY_BYTES), Some("5000"));
        let digest = hex::encode(Sha256::digest(&body));
        assert_eq!(headers.get(header::BODY_SHA256), Some(digest.as_str()));
        assert_eq!(headers.get("X-Other"), Some("kept"));
        assert_eq!(headers.get(header::HEADERS_CUT), None);
        assert!(is_cut(&headers) && !is_cut(&letter("kept")));
    }

    #[test]
    fn headers_that_have_no_room_are_counted_and_ours_stay() {
        let body = Bytes::from_static(b"hi");
        let (headers, kept) = cut(&letter(&"y".repeat(2_000)), &body, 1_000).unwrap();
        assert_eq!(kept, "hi");
        assert_eq!(headers.get("X-Other"), None);
        assert_eq!(headers.get(header::HEADERS_CUT), Some("1"));
        assert_eq!(headers.get(header::ERROR_CODE), Some("panic"));
        assert_eq!(cut(&letter("y"), &body, 50), None);
    }
}
