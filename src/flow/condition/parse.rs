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
/// Longer than any author writes.
const MAX_BYTES: usize = 4096;

impl Condition {
    /// Compiles a condition. The error says what is wrong with it.
    pub(in crate::flow) fn compile(source: &str) -> Result<Self, String> {
        if source.len() > MAX_BYTES {
            let bytes = source.len();
            return Err(format!(
                "it has {bytes} bytes, and a condition may have {MAX_BYTES}"
            ));
        }
        let signs = Signs::of(source);
        if signs.operators.is_empty() {
            return Ok(Self::Never);
        }
        let mut parser = Parser {
            source,
            signs,
            at: 0,
            open: 0,
            depth: 0,
        };
        let condition = parser.any()?;
        match parser.rest().trim() {
            "" => Ok(condition),
            rest => Err(format!("`{rest}` is left over")),
        }
    }
}

/// Where in a condition the signs are that its parts are told by. They are looked for once, so that reading it takes as
/// long as it is long.
struct Signs {
    /// The operators outside of double quotes: where each begins, and which it is.
    operators: Vec<(usize, &'static str, Op)>,
    /// The joining words with blanks around them, quoted or not: where each begins, and where it ends.
    ands: Vec<usize>,
    ors: Vec<usize>,
}

impl Signs {
    fn of(source: &str) -> Self {
        let operator = |at: usize| {
            let starts = |(sign, _): &&(&str, Op)| source[at..].starts_with(sign);
            let found = OPERATORS.iter().find(starts);
            found.map(|(sign, op)| (at, *sign, *op))
        };
        let blanks = || source.match_indices(' ').map(|(at, _)| at);
        let starts = |word: &str| {
            blanks()
                .filter(|at| source[*at..].starts_with(word))
                .collect()
        };
        Self {
            operators: outside_quotes(source, 0).filter_map(operator).collect(),
            ands: starts(AND),
            ors: starts(OR),
        }
    }

    /// The first operator from here on.
    fn operator(&self, from: usize) -> Option<(usize, &'static str, Op)> {
        let at = self.operators.partition_point(|(at, ..)| *at < from);
        self.operators.get(at).copied()
    }

    /// Returns whether a joining word stands between these two.
    fn joins_between(&self, from: usize, to: usize) -> bool {
        let is_between = |starts: &[usize], word: &str| {
            let first = starts.get(starts.partition_point(|at| *at < from));
            first.is_some_and(|at| at + word.len() <= to)
        };
        is_between(&self.ands, AND) || is_between(&self.ors, OR)
    }
}

const AND: &str = " and ";
const OR: &str = " or ";

/// The places outside of double quotes. `from` is one itself.
fn outside_quotes(source: &str, from: usize) -> impl Iterator<Item = usize> {
    let mut quoted = false;
    source[from..].char_indices().filter_map(move |(at, c)| {
        quoted ^= c == '"';
        (!quoted && c != '"').then_some(from + at)
    })
}

struct Parser<'s> {
    source: &'s str,
    signs: Signs,
    /// Up to where it has been read.
    at: usize,
    /// Brackets that are open.
    open: usize,
    depth: usize,
}

impl<'s> Parser<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at = self.source.len() - self.rest().trim_start().len();
    }

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
        self.skip_blanks();
        let term = if self.takes_word("not") {
            Condition::Not(Box::new(self.term()?))
        } else if self.rest().starts_with('(') {
            self.at += 1;
            self.open += 1;
            let inner = self.any()?;
            self.skip_blanks();
            if !self.rest().starts_with(')') {
                return Err("a bracket is not closed".to_owned());
            }
            self.at += 1;
            self.open -= 1;
            inner
        } else {
            Condition::Compare(self.comparison()?)
        };
        self.depth -= 1;
        Ok(term)
    }

    fn comparison(&mut self) -> Result<Comparison, String> {
        let (operator, sign, op) =
            self.signs
                .operator(self.at)
                .ok_or_else(|| match self.rest().trim() {
                    "" => "it ends where a comparison should be".to_owned(),
                    rest => format!("`{rest}` is no comparison: it has no operator"),
                })?;
        let text = operator + sign.len();
        let end = self.end_of_text(text);
        let (path, text) = (&self.source[self.at..operator], &self.source[text..end]);
        self.at = end;
        Comparison::new(path, op, text)
    }

    /// Where the text on the right of a comparison ends.
    fn end_of_text(&self, from: usize) -> usize {
        let mut own_brackets = 0_usize;
        let mut ends = |at: usize| match self.source.as_bytes()[at] {
            b'(' => {
                own_brackets += 1;
                false
            }
            b')' if own_brackets > 0 => {
                own_brackets -= 1;
                false
            }
            b')' => self.open > 0,
            byte if byte.is_ascii_whitespace() => {
                // What follows a run of blanks is looked at once.
                let is_first = at == from || !self.source.as_bytes()[at - 1].is_ascii_whitespace();
                is_first && self.joins(at)
            }
            _ => false,
        };
        outside_quotes(self.source, from)
            .find(|at| ends(*at))
            .unwrap_or(self.source.len())
    }

    /// Returns whether a joining word with a comparison after it follows this blank.
    fn joins(&self, at: usize) -> bool {
        let text = self.source[at..].trim_start();
        let Some(after) = text.strip_prefix("and").or_else(|| text.strip_prefix("or")) else {
            return false;
        };
        if !ends_word(after) {
            return false;
        }
        let after = self.source.len() - after.len();
        let Some((operator, ..)) = self.signs.operator(after) else {
            return false;
        };
        // The comparison's own left side: if it holds a joining word itself, then this one is part of a text.
        !self.signs.joins_between(after, operator)
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let Some(after) = self.rest().trim_start().strip_prefix(word) else {
            return false;
        };
        let is_word = ends_word(after);
        if is_word {
            self.at = self.source.len() - after.len();
        }
        is_word
    }
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
