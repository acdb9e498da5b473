//! Reads conditions.
//!
//! The text on the right needs no quotes and may hold anything, brackets and the words `and` and `or` included: packs in
//! the field have such texts. So a word or bracket only counts where it cannot be part of a text: a joining word where
//! another comparison follows it, an opening bracket where a comparison may start, a closing one where one is open.

use super::{Comparison, Condition, Op};

/// Operators, longer ones first where one begins with another.
const OPERATORS: [(&str, Op); 7] = [
    ("==", Op::Equal),
    ("!=", Op::Unequal),
    (">=", Op::AtLeast),
    ("<=", Op::AtMost),
    (">", Op::Greater),
    ("<", Op::Less),
    (" contains ", Op::Contains),
];

/// Deeper nesting than any author writes, and shallower than what the stack takes.
const MAX_NESTING: usize = 64;

impl Condition {
    /// Compiles a condition. The error says what is wrong with it.
    pub(in crate::flow) fn compile(source: &str) -> Result<Self, String> {
        if find_operator(source).is_none() {
            return Ok(Self::Never);
        }
        let mut parser = Parser {
            rest: source,
            open: 0,
            depth: 0,
        };
        let condition = parser.any()?;
        match parser.rest.trim() {
            "" => Ok(condition),
            rest => Err(format!("`{rest}` is left over")),
        }
    }
}

/// The first operator outside of double quotes: where it begins, and which.
fn find_operator(text: &str) -> Option<(usize, &'static str, Op)> {
    outside_quotes(text).find_map(|at| {
        let starts = |(sign, _): &&(&str, Op)| text[at..].starts_with(sign);
        OPERATORS
            .iter()
            .find(starts)
            .map(|(sign, op)| (at, *sign, *op))
    })
}

fn outside_quotes(text: &str) -> impl Iterator<Item = usize> {
    let mut quoted = false;
    text.char_indices().filter_map(move |(at, c)| {
        quoted ^= c == '"';
        (!quoted && c != '"').then_some(at)
    })
}

struct Parser<'s> {
    rest: &'s str,
    /// Brackets that are open.
    open: usize,
    depth: usize,
}

impl<'s> Parser<'s> {
    fn any(&mut self) -> Result<Condition, String> {
        let mut parts = vec![self.all()?];
        while self.takes_word("or") {
            parts.push(self.all()?);
        }
        Ok(single_or(parts, Condition::Any))
    }

    fn all(&mut self) -> Result<Condition, String> {
        let mut parts = vec![self.term()?];
        while self.takes_word("and") {
            parts.push(self.term()?);
        }
        Ok(single_or(parts, Condition::All))
    }

    fn term(&mut self) -> Result<Condition, String> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(format!("it nests deeper than {MAX_NESTING} levels"));
        }
        self.rest = self.rest.trim_start();
        let term = if self.takes_word("not") {
            Condition::Not(Box::new(self.term()?))
        } else if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest;
            self.open += 1;
            let inner = self.any()?;
            self.rest = self.rest.trim_start();
            self.rest = self
                .rest
                .strip_prefix(')')
                .ok_or("a bracket is not closed")?;
            self.open -= 1;
            inner
        } else {
            Condition::Compare(self.comparison()?)
        };
        self.depth -= 1;
        Ok(term)
    }

    fn comparison(&mut self) -> Result<Comparison, String> {
        let (at, sign, op) = find_operator(self.rest).ok_or_else(|| match self.rest.trim() {
            "" => "it ends where a comparison should be".to_owned(),
            rest => format!("`{rest}` is no comparison: it has no operator"),
        })?;
        let (path, text) = (&self.rest[..at], &self.rest[at + sign.len()..]);
        let end = self.end_of_text(text);
        self.rest = &text[end..];
        Comparison::new(path, op, &text[..end])
    }

    /// Where the text on the right of a comparison ends.
    fn end_of_text(&self, text: &str) -> usize {
        let mut own_brackets = 0_usize;
        let mut ends = |at: usize| match text.as_bytes()[at] {
            b'(' => {
                own_brackets += 1;
                false
            }
            b')' if own_brackets > 0 => {
                own_brackets -= 1;
                false
            }
            b')' => self.open > 0,
            byte => byte.is_ascii_whitespace() && joins(&text[at..]),
        };
        outside_quotes(text)
            .find(|at| ends(*at))
            .unwrap_or(text.len())
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let Some(after) = self.rest.trim_start().strip_prefix(word) else {
            return false;
        };
        let is_word = ends_word(after);
        if is_word {
            self.rest = after;
        }
        is_word
    }
}

/// Whether this is a joining word with a comparison after it.
fn joins(text: &str) -> bool {
    let text = text.trim_start();
    let Some(after) = text.strip_prefix("and").or_else(|| text.strip_prefix("or")) else {
        return false;
    };
    if !ends_word(after) {
        return false;
    }
    let Some((operator, _, _)) = find_operator(after) else {
        return false;
    };
    // The comparison's own left side: if it holds a joining word itself, then this one is part of a text.
    !after[..operator].contains(" and ") && !after[..operator].contains(" or ")
}

fn ends_word(after: &str) -> bool {
    after.starts_with(|c: char| c.is_whitespace() || c == '(')
}

fn single_or(mut parts: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => Condition::Never,
    }
}
