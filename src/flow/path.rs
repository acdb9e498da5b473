//! Paths into what a flow can see: the roots, the grammars that name a place under them, and the walk to it.

use serde_json::Value;

/// The first part of every path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Root {
    /// The turn's payload.
    Entry,
    /// The turn's payload, by its other name.
    In,
    /// The output of the node that ran last.
    Prev,
    /// The outputs of all nodes, by node.
    Node,
    /// What the run is made of.
    State,
    /// The flow's variables.
    Vars,
    /// The time of the step.
    Now,
    /// The variables granted to the pack.
    Env,
    /// The value that is given to a map, which is there only while the map is made.
    Input,
    /// The same, by its other name.
    Result,
}

impl Root {
    /// All roots that are always there.
    pub(super) const ALL: [Self; 8] = [
        Self::Entry,
        Self::In,
        Self::Prev,
        Self::Node,
        Self::State,
        Self::Vars,
        Self::Now,
        Self::Env,
    ];

    /// The name that templates use.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::In => "in",
            Self::Prev => "prev",
            Self::Node => "node",
            Self::State => "state",
            Self::Vars => "vars",
            Self::Now => "now",
            Self::Env => "env",
            Self::Input => "input",
            Self::Result => "result",
        }
    }

    /// All names, for people.
    pub(super) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The root with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().chain([Self::Input, Self::Result]);
        all.into_iter().find(|root| root.name() == name)
    }

    /// Whether it is one of what is given to a map.
    pub(super) fn is_given(self) -> bool {
        matches!(self, Self::Input | Self::Result)
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seg {
    /// A key of an object, and of nothing else.
    Key(Box<str>),
    /// A position in an array, and in nothing else.
    Index(usize),
    /// A key of an object or a position in an array, whichever is there.
    Either {
        /// As a key.
        key: Box<str>,
        /// As a position, if it is a number.
        index: Option<usize>,
    },
}

impl Seg {
    /// A key or a position, whichever fits what is there.
    pub(super) fn either(key: &str) -> Self {
        Self::Either {
            key: key.into(),
            index: key.parse().ok(),
        }
    }

    /// The key, where it can be one.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) | Self::Either { key, .. } => Some(key),
            Self::Index(_) => None,
        }
    }
}

/// A place that a template or condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// The object of all roots.
    Everything,
    /// A place under a root.
    At(Root, Vec<Seg>),
    /// A place under something that is no root: nothing is ever there.
    Nowhere,
}

impl Reference {
    fn under_roots(segs: Vec<Seg>) -> Self {
        let Some(first) = segs.first() else {
            return Self::Everything;
        };
        match first.key().and_then(Root::named) {
            Some(root) => Self::At(root, segs.into_iter().skip(1).collect()),
            None => Self::Nowhere,
        }
    }

    /// Reads `a.b`, `a[0]`, `a["k k"]`, with or without a leading `this`. `None` if it is no path, e.g. a helper call.
    pub(super) fn from_expression(expression: &str) -> Option<Self> {
        let mut segs = segments(expression)?;
        if segs.first().is_some_and(|seg| seg.key() == Some("this")) {
            segs.remove(0);
        }
        Some(Self::under_roots(segs))
    }

    /// Reads the names of a path, each of them a key or a position.
    pub(super) fn from_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self::under_roots(names.into_iter().map(Seg::either).collect())
    }

    /// Reads a JSON pointer. `None` if its first name is no root, in which case it is only a text.
    pub(super) fn from_pointer(pointer: &str) -> Option<Self> {
        let names = pointer.strip_prefix('/')?.split('/');
        let names: Vec<_> = names
            .map(|n| n.replace("~1", "/").replace("~0", "~"))
            .collect();
        match Self::from_names(names.iter().map(String::as_str)) {
            Self::Nowhere => None,
            found @ (Self::Everything | Self::At(..)) => Some(found),
        }
    }
}

/// Dots between names are optional and empty names are passed over, as the packs in the field have it.
fn segments(expression: &str) -> Option<Vec<Seg>> {
    let mut rest = expression.trim();
    let mut segs = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('[') {
            let (seg, after) = bracketed(inside)?;
            segs.push(seg);
            rest = after;
        } else {
            let (name, after) = plain_name(rest)?;
            segs.push(Seg::Key(name.into()));
            rest = after;
        }
    }
    (!segs.is_empty()).then_some(segs)
}

fn plain_name(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.split_at(text.find(['.', '[', ']']).unwrap_or(text.len()));
    let name = name.trim();
    let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
    is_name.then_some((name, after))
}

fn bracketed(inside: &str) -> Option<(Seg, &str)> {
    let first = inside.chars().next()?;
    let (seg, after) = if matches!(first, '"' | '\'') {
        let (key, after) = inside[1..].split_once(first)?;
        (Seg::Key(key.into()), after)
    } else if first.is_ascii_digit() {
        let end = inside
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(inside.len());
        (Seg::Index(inside[..end].parse().ok()?), &inside[end..])
    } else {
        let (name, after) = plain_name(inside)?;
        (Seg::Key(name.into()), after)
    };
    Some((seg, after.trim_start().strip_prefix(']')?))
}

/// A name that was looked up in an array, where only positions are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NameInArray(pub(super) Box<str>);

/// Follows the steps. `Ok(None)` where nothing is there.
pub(super) fn walk<'v>(from: &'v Value, segs: &[Seg]) -> Result<Option<&'v Value>, NameInArray> {
    let mut at = from;
    for seg in segs {
        let next = match (seg, at) {
            (Seg::Key(key) | Seg::Either { key, .. }, Value::Object(map)) => map.get(&**key),
            (
                Seg::Index(index)
                | Seg::Either {
                    index: Some(index), ..
                },
                Value::Array(items),
            ) => items.get(*index),
            (Seg::Either { key, index: None }, Value::Array(_)) => {
                return Err(NameInArray(key.clone()));
            }
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// What templates and conditions may look at, as far as can be known without running them.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    /// They may look at anything.
    pub(super) everything: bool,
    /// The places, as the keys under a root; what lies below them is looked at too.
    pub(super) places: Vec<(Root, Vec<Box<str>>)>,
}

impl Uses {
    /// Notes that this place is looked at.
    pub(super) fn note(&mut self, reference: &Reference) {
        match reference {
            Reference::Everything => self.everything = true,
            Reference::Nowhere => {}
            Reference::At(root, segs) => {
                let keys = segs.iter().map_while(Seg::key).map(Into::into).collect();
                self.places.push((*root, keys));
            }
        }
    }

    /// Notes all that the other one has noted.
    pub(super) fn extend(&mut self, other: &Self) {
        self.everything |= other.everything;
        self.places.extend(other.places.iter().cloned());
    }

    /// Leaves out every place that lies below another one.
    pub(super) fn without_nested(mut self) -> Self {
        // In this order, what lies below a place follows it without anything else in between.
        self.places.sort();
        self.places
            .dedup_by(|(root, keys), (above, kept)| root == above && keys.starts_with(kept));
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: Value) {
        let data = json!({"a": {"b": 1, "k k": 2, "1": 3, "list": [4, {"c": 5}]}});
        let found = match Reference::from_expression(expression) {
            None => json!("no path"),
            Some(Reference::Everything) => json!("everything"),
            Some(Reference::Nowhere) => json!("nowhere"),
            Some(Reference::At(_, segs)) => walk(&data, &segs)
                .unwrap()
                .cloned()
                .unwrap_or(json!("missing")),
        };
        assert_eq!(found, expected, "{expression}");
    }

    #[test]
    fn the_path_grammar() {
        check("prev.a.b", json!(1));
        check("this.prev.a.b", json!(1));
        check(" prev . a . b ", json!(1));
        check("prev.a[\"k k\"]", json!(2));
        check("prev['a'].b", json!(1));
        check("prev[a][b]", json!(1));
        check("prev.a.1", json!(3));
        check("prev.a.list[0]", json!(4));
        check("prev.a.list[1].c", json!(5));
        check("prev.a.list[ 0]", json!("missing"));
        check("prev.a.list.0", json!("missing"));
        check("prev.a[0]", json!("missing"));
        check("prev..a.b.", json!(1));
        check("this", json!("everything"));
        check("text", json!("nowhere"));
        for no_path in [
            "",
            ".",
            "upper prev",
            "prev[",
            "prev[0",
            "prev[a b]",
            "prev]",
            "a[\"b]",
        ] {
            check(no_path, json!("no path"));
        }
    }

    #[test]
    fn pointers_and_names_index_arrays() {
        let data = json!({"list": [1, {"c/d": 2}]});
        let Some(Reference::At(Root::Vars, segs)) = Reference::from_pointer("/vars/list/1/c~1d")
        else {
            panic!("no pointer");
        };
        assert_eq!(walk(&data, &segs).unwrap(), Some(&json!(2)));
        assert_eq!(Reference::from_pointer("/api/v1"), None);
        let Reference::At(_, segs) = Reference::from_names(["vars", "list", "c"]) else {
            panic!("no root");
        };
        assert_eq!(walk(&data, &segs), Err(NameInArray("c".into())));
    }
}
