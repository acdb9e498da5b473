//! Dead letters as text and as JSON. What a provider wrote never reaches the terminal as more than text.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::adapters::nats::dead_letters::DeadLetter;
use crate::model::{Headers, header};
use crate::worker::dead_letter;

/// The names of a row's columns. Rows are printed as they come, so the columns have fixed widths.
pub const HEADING: &str = "SEQ      TIME                 TENANT           CODE                 TRIES KEY                      REASON";

/// How much of a reason a row shows.
const REASON: usize = 120;

/// One line of the table.
pub fn row(letter: &DeadLetter) -> String {
    format!(
        "{:<8} {:<20} {:<16} {:<20} {:<5} {:<24} {}",
        letter.sequence,
        seconds(letter.stored),
        plain(&letter.tenant),
        said(letter, header::ERROR_CODE),
        said(letter, header::ATTEMPTS),
        name(letter),
        shortened(&said(letter, header::ERROR)),
    )
}

/// The activity's name, or a dash.
pub fn name(letter: &DeadLetter) -> String {
    name_in(&letter.headers, &letter.body)
}

/// The name that these headers and this body give an activity, or a dash.
pub fn name_in(headers: &Headers, body: &[u8]) -> String {
    dead_letter::name(headers, body).map_or("-".to_owned(), |name| plain(&name))
}

/// All of it, for a person.
pub fn whole(letter: &DeadLetter) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing into a String does not fail.
        let _ = writeln!(text, "{name:<11}{value}");
    };
    line("sequence", letter.sequence.to_string());
    line("time", precise(letter.stored));
    line("tenant", plain(&letter.tenant));
    line("code", said(letter, header::ERROR_CODE));
    line("reason", said(letter, header::ERROR));
    line("attempts", said(letter, header::ATTEMPTS));
    line("key", name(letter));
    line("headers", String::new());
    for (name, value) in letter.headers.iter() {
        let _ = writeln!(text, "  {}: {}", plain(name), plain(value));
    }
    let _ = writeln!(text, "body       {} bytes", letter.body.len());
    match std::str::from_utf8(&letter.body) {
        Ok(body) => {
            let _ = writeln!(text, "{}", printable(body));
        }
        Err(_) => {
            let _ = writeln!(text, "(no UTF-8; base64) {}", STANDARD.encode(&letter.body));
        }
    }
    text
}

/// One JSON object; the body with it where it is wanted, as text or else as `body_base64`.
pub fn json(letter: &DeadLetter, with_body: bool) -> Value {
    let own = |name| letter.headers.get(name);
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    put("sequence", json!(letter.sequence));
    put("time", json!(precise(letter.stored)));
    put("tenant", json!(letter.tenant));
    put("code", json!(own(header::ERROR_CODE)));
    put("reason", json!(own(header::ERROR)));
    let attempts = own(header::ATTEMPTS).and_then(|text| text.parse::<u32>().ok());
    put("attempts", json!(attempts));
    put(
        "key",
        json!(dead_letter::name(&letter.headers, &letter.body)),
    );
    put("bytes", json!(letter.body.len()));
    if with_body {
        let headers: Vec<(&str, &str)> = letter.headers.iter().collect();
        put("headers", json!(headers));
        match std::str::from_utf8(&letter.body) {
            Ok(body) => put("body", json!(body)),
            Err(_) => put("body_base64", json!(STANDARD.encode(&letter.body))),
        }
    }
    Value::Object(object)
}

fn said(letter: &DeadLetter, header: &str) -> String {
    plain(letter.headers.get(header).unwrap_or("-"))
}

fn seconds(time: OffsetDateTime) -> String {
    precise(time.replace_nanosecond(0).unwrap_or(time))
}

fn precise(time: OffsetDateTime) -> String {
    // Years that RFC 3339 cannot write do not come from a server.
    time.format(&Rfc3339).unwrap_or_default()
}

/// Without control characters, which move the cursor or end the line.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// As `plain`, with the lines that a body may have.
fn printable(text: &str) -> String {
    text.replace(
        |c: char| c.is_control() && c != '\n' && c != '\t',
        "\u{fffd}",
    )
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(body: &'static [u8]) -> DeadLetter {
        DeadLetter {
            sequence: 17,
            stored: time::macros::datetime!(2026-01-31 08:00:01.5 UTC),
            tenant: "dev.local".to_owned(),
            headers: [
                (header::ERROR_CODE, "panic"),
                (header::ERROR, "a\u{1b}[2Jb"),
                (header::ATTEMPTS, "5"),
                (header::IDEMPOTENCY_KEY, "m1"),
            ]
            .into_iter()
            .collect(),
            body: body.into(),
        }
    }

    #[test]
    fn a_row_stands_under_its_heading_and_moves_no_cursor() {
        let row = row(&letter(b"{}"));
        for (column, value) in [
            ("SEQ", "17"),
            ("TIME", "2026-01-31T08:00:01Z"),
            ("TENANT", "dev.local"),
            ("CODE", "panic"),
            ("TRIES", "5"),
            ("KEY", "m1"),
            ("REASON", "a [2Jb"),
        ] {
            let at = HEADING.find(column).unwrap();
            assert!(row[at..].starts_with(value), "{column}: {row}");
        }
    }

    #[test]
    fn bodies_are_shown_whatever_they_are() {
        assert!(whole(&letter(b"{\"a\":\x1b1}\n")).contains("{\"a\":\u{fffd}1}\n"));
        assert!(whole(&letter(b"\xff")).contains("/w=="));
        assert_eq!(json(&letter(b"\xff"), true)["body_base64"], "/w==");
        let shown = json(&letter(b"x"), true);
        assert_eq!(shown["body"], "x");
        assert_eq!(shown["reason"], "a\u{1b}[2Jb");
        assert_eq!(shown["attempts"], 5);
        assert!(json(&letter(b"x"), false).get("body").is_none());
    }
}
