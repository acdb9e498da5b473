//! The two forms of a log line.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::span::{NAME, TurnSpan};

/// `2026-01-31T12:00:00.000000Z  INFO turn{tenant=dev.local message=m-1}: what happened count=3`.
pub(super) struct Human;

/// `{"timestamp":"…","level":"INFO","target":"…","message":"what happened","turn":{"tenant":"dev.local","message":"m-1"}}`.
pub(super) struct Json;

impl<'w> FormatFields<'w> for Human {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut pairs = Pairs::new(&mut writer, false);
        fields.record(&mut pairs);
        pairs.result
    }
}

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let level = *event.metadata().level();
        if writer.has_ansi_escapes() {
            write!(writer, " \x1b[{}m{level:>5}\x1b[0m ", colour(level))?;
        } else {
            write!(writer, " {level:>5} ")?;
        }
        if let Some(turn) = TurnSpan::current() {
            write!(writer, "{NAME}{{")?;
            let mut pairs = Pairs::new(&mut writer, false);
            turn.each(|name, value| pairs.text(name, value));
            pairs.result?;
            writer.write_str("}: ")?;
        }
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            write!(writer, "{}", span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                write!(writer, "{{{fields}}}")?;
            }
            writer.write_str(": ")?;
        }
        write!(writer, "{}: ", event.metadata().target())?;
        let mut pairs = Pairs::new(&mut writer, true);
        event.record(&mut pairs);
        pairs.result?;
        writeln!(writer)
    }
}

impl<'w> FormatFields<'w> for Json {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut members = Members::new(&mut writer);
        fields.record(&mut members);
        members.result
    }

    fn add_fields(
        &self,
        current: &'w mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        if !current.fields.is_empty() {
            current.fields.push(',');
        }
        self.format_fields(current.as_writer(), fields)
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        writer.write_str(r#"{"timestamp":""#)?;
        SystemTime.format_time(&mut writer)?;
        let (level, target) = (metadata.level(), metadata.target());
        write!(writer, r#"","level":"{level}","target":"{target}","#)?;
        let mut members = Members::new(&mut writer);
        event.record(&mut members);
        members.result?;
        if let Some(turn) = TurnSpan::current() {
            write!(writer, r#","{NAME}":{{"#)?;
            let mut members = Members::new(&mut writer);
            turn.each(|name, value| members.member(name, format_args!("{value}"), true));
            members.result?;
            writer.write_char('}')?;
        }
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            write!(writer, r#","{}":{{"#, span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                write!(writer, "{fields}")?;
            }
            writer.write_char('}')?;
        }
        writeln!(writer, "}}")
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// The field of an event that holds problems, which are several lines.
const PROBLEMS: &str = "problems";

/// Writes fields as `key=value`, apart by blanks. In an event the field `message` is the text itself.
struct Pairs<'a, 'w> {
    writer: &'a mut Writer<'w>,
    event: bool,
    first: bool,
    result: fmt::Result,
}

impl<'a, 'w> Pairs<'a, 'w> {
    fn new(writer: &'a mut Writer<'w>, event: bool) -> Self {
        Self {
            writer,
            event,
            first: true,
            result: Ok(()),
        }
    }

    /// Several lines, each below the event and marked as its own, so that none of them can pass for another event.
    fn lines(&mut self, value: &dyn Debug) {
        let mut write = || {
            for line in format!("{value:?}").lines() {
                self.writer.write_str("\n    | ")?;
                Escaped::write(self.writer, &[], format_args!("{line}"))?;
            }
            Ok(())
        };
        self.result = self.result.and_then(|()| write());
    }

    fn pair(&mut self, name: &str, value: &dyn Debug) {
        if self.event && name == PROBLEMS {
            return self.lines(value);
        }
        let mut write = || {
            if !std::mem::take(&mut self.first) {
                self.writer.write_char(' ')?;
            }
            if !(self.event && name == "message") {
                write!(self.writer, "{name}=")?;
            }
            Escaped::write(self.writer, &[], format_args!("{value:?}"))
        };
        self.result = self.result.and_then(|()| write());
    }

    fn text(&mut self, name: &str, value: &str) {
        let bare = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        if bare || (self.event && name == "message") {
            self.pair(name, &format_args!("{value}"));
        } else {
            self.pair(name, &value);
        }
    }
}

impl Visit for Pairs<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.pair(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }
}

/// Writes fields as members of a JSON object, apart by commas.
struct Members<'a, 'w> {
    writer: &'a mut Writer<'w>,
    first: bool,
    result: fmt::Result,
}

impl<'a, 'w> Members<'a, 'w> {
    fn new(writer: &'a mut Writer<'w>) -> Self {
        Self {
            writer,
            first: true,
            result: Ok(()),
        }
    }

    fn member(&mut self, name: &str, value: fmt::Arguments<'_>, quoted: bool) {
        let comma = if std::mem::take(&mut self.first) {
            ""
        } else {
            ","
        };
        let writer = &mut *self.writer;
        let mut write = || {
            write!(writer, r#"{comma}"{name}":"#)?;
            if !quoted {
                return writer.write_fmt(value);
            }
            writer.write_char('"')?;
            Escaped::write(writer, &['"', '\\'], value)?;
            writer.write_char('"')
        };
        self.result = self.result.and_then(|()| write());
    }
}

impl Visit for Members<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.member(field.name(), format_args!("{value:?}"), true);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field.name(), format_args!("{value}"), true);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field.name(), format_args!("{value}"), false);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field.name(), format_args!("{value}"), false);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field.name(), format_args!("{value}"), false);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        self.member(field.name(), format_args!("{value}"), !value.is_finite());
    }
}

/// Passes text on with these characters after a backslash, and with control characters and those that no reader sees as
/// `\u....`, so that what a message brings along can end neither the line nor the JSON, nor make a terminal show another
/// line than the one that is written.
///
/// A value ends after [`MOST_BYTES`].
struct Escaped<'a, 'w> {
    writer: &'a mut Writer<'w>,
    special: &'a [char],
    left: usize,
}

/// The most bytes that a line shows of one value: an error may quote what a message brought along.
const MOST_BYTES: usize = 16 * 1024;

impl<'a, 'w> Escaped<'a, 'w> {
    fn write(
        writer: &'a mut Writer<'w>,
        special: &'a [char],
        value: fmt::Arguments<'_>,
    ) -> fmt::Result {
        let mut escaped = Self {
            writer,
            special,
            left: MOST_BYTES,
        };
        match escaped.write_fmt(value) {
            Err(_) if escaped.left == 0 => escaped.writer.write_str("... (cut)"),
            written => written,
        }
    }
}

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let taken = &text[..text.floor_char_boundary(self.left)];
        escape(self.writer, self.special, taken)?;
        if taken.len() < text.len() {
            self.left = 0;
            return Err(fmt::Error);
        }
        self.left -= taken.len();
        Ok(())
    }
}

fn escape(writer: &mut impl Write, special: &[char], text: &str) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| is_unseen(c) || special.contains(&c)) {
        let (plain, tail) = rest.split_at(at);
        writer.write_str(plain)?;
        let Some(found) = tail.chars().next() else {
            break;
        };
        match found {
            '\n' => writer.write_str("\\n")?,
            c if is_unseen(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            c => write!(writer, "\\{c}")?,
        }
        rest = &tail[found.len_utf8()..];
    }
    writer.write_str(rest)
}

/// A text for a terminal, in lines as it is, with what no reader sees escaped as in the log.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            printable.push('\n');
        }
        // A string takes any text.
        let _written = escape(&mut printable, &[], line);
    }
    printable
}

/// Returns whether a character is a control or changes how others are shown without being seen: what Unicode calls format
/// characters (those that turn the direction of text, that have no width, tags), line and paragraph separators, and
/// letters and selectors that are blank.
fn is_unseen(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}
