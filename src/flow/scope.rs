//! What templates and conditions of one step look at. Nothing is copied until something is found; what the roots show
//! beyond the run's own values is made only when it is asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::output::{Output, View};
use super::path::{NameInArray, Reference, Root, Seg, Uses, walk};
use super::payload;

/// The outputs of the nodes that ran, by node id.
pub(super) type Outputs = BTreeMap<Arc<str>, Output>;

/// What was found at a place.
pub(super) type Found<'a> = Result<Option<Cow<'a, Value>>, NameInArray>;

/// Everything in sight of one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    /// The turn's payload as it came.
    pub(super) entry: &'a Value,
    /// The run's input: the payload, or what the last jump gave.
    pub(super) input: &'a Value,
    /// The output of the node that ran last.
    pub(super) prev: &'a Value,
    /// The outputs of all nodes.
    pub(super) outputs: &'a Outputs,
    /// The flow's variables.
    pub(super) vars: &'a Map<String, Value>,
    /// How many jumps the run made in this turn.
    pub(super) jumps: u32,
    /// The variables granted to the pack.
    pub(super) env: &'a BTreeMap<String, String>,
    /// The time of the step.
    pub(super) now: OffsetDateTime,
    /// What is given to the map that is being made, if one is.
    pub(super) given: Option<&'a Value>,
}

impl<'a> Scope<'a> {
    /// What templates find at a place.
    pub(super) fn find(&self, reference: &Reference) -> Found<'a> {
        match reference {
            Reference::Everything => Ok(Some(Cow::Owned(self.everything()))),
            Reference::At(root, segs) => self.find_under(*root, segs),
            Reference::Nowhere => Ok(None),
        }
    }

    pub(super) fn find_under(&self, root: Root, segs: &[Seg]) -> Found<'a> {
        match root {
            Root::Entry | Root::In if segs.is_empty() => {
                Ok(Some(Cow::Owned(payload::whole_merged(self.entry))))
            }
            Root::Entry | Root::In => borrowed(payload::merged(self.entry, segs)),
            Root::Prev => borrowed(walk(self.prev, segs)),
            Root::Node => self.node(segs),
            Root::State => self.state(segs),
            Root::Vars => self.var(segs),
            Root::Now => owned(self.now(), segs),
            Root::Env => self.env(segs),
            Root::Input | Root::Result => match self.given {
                Some(given) => borrowed(walk(given, segs)),
                None => Ok(None),
            },
        }
    }

    fn everything(&self) -> Value {
        let of_root = |root: Root| {
            let value = self.find_under(root, &[]).ok().flatten();
            (
                root.name().to_owned(),
                value.map_or(Value::Null, Cow::into_owned),
            )
        };
        let given = [Root::Input, Root::Result].into_iter();
        let given = given.filter(|_| self.given.is_some());
        Value::Object(Root::ALL.into_iter().chain(given).map(of_root).collect())
    }

    /// The data for a template that is run as a whole: only what it may look at, in its place.
    pub(super) fn extract(&self, uses: &Uses) -> Value {
        if uses.everything {
            return self.everything();
        }
        let mut data = Map::new();
        for (root, keys) in &uses.places {
            let names = std::iter::once(root.name()).chain(keys.iter().map(|key| &**key));
            let (keys, found) = match self.find(&Reference::from_names(names)) {
                Ok(found) => (keys.as_slice(), found),
                // The template may fail on this one, if it gets there: it needs what is really there.
                Err(NameInArray(_)) => (&[][..], self.find_under(*root, &[]).ok().flatten()),
            };
            if let Some(found) = found {
                graft(&mut data, *root, keys, found.into_owned());
            }
        }
        Value::Object(data)
    }

    fn node(&self, segs: &[Seg]) -> Found<'a> {
        let [first, rest @ ..] = segs else {
            let views = self.outputs.iter();
            let all = views
                .map(|(id, output)| (id.to_string(), view(&output.payload)))
                .collect();
            return Ok(Some(Cow::Owned(Value::Object(all))));
        };
        let Some(output) = first.key().and_then(|id| self.outputs.get(id)) else {
            return Ok(None);
        };
        let payload = &*output.payload;
        let Value::Object(_) = payload else {
            return borrowed(walk(payload, rest));
        };
        match rest {
            [] => Ok(Some(Cow::Owned(view(payload)))),
            [data, rest @ ..] if data.key() == Some("data") => {
                borrowed(walk(View::of(payload).data(), rest))
            }
            [errors, rest @ ..] if errors.key() == Some("errors") => {
                owned(View::of(payload).errors(), rest)
            }
            rest => borrowed(walk(payload, rest)),
        }
    }

    fn state(&self, segs: &[Seg]) -> Found<'a> {
        let [first, rest @ ..] = segs else {
            let nodes = self.state_nodes(&[])?.map_or(Value::Null, Cow::into_owned);
            return Ok(Some(Cow::Owned(json!({
                "entry": self.entry,
                "input": self.input,
                "nodes": nodes,
                "redirect_count": self.jumps,
                "park_turns": {},
                "pending_agent_await": [],
            }))));
        };
        match first.key() {
            Some("entry") => borrowed(walk(self.entry, rest)),
            Some("input") => borrowed(walk(self.input, rest)),
            Some("nodes") => self.state_nodes(rest),
            Some("redirect_count") => owned(json!(self.jumps), rest),
            Some("park_turns") => owned(json!({}), rest),
            Some("pending_agent_await") => owned(json!([]), rest),
            _ => Ok(None),
        }
    }

    fn state_nodes(&self, segs: &[Seg]) -> Found<'a> {
        let shown = |output: &Output| json!({"ok": !output.is_failed(), "payload": *output.payload, "meta": output.meta()});
        let [first, rest @ ..] = segs else {
            let shown = |(id, output): (&Arc<str>, &Output)| (id.to_string(), shown(output));
            let all = self.outputs.iter().map(shown).collect();
            return Ok(Some(Cow::Owned(Value::Object(all))));
        };
        let Some(output) = first.key().and_then(|id| self.outputs.get(id)) else {
            return Ok(None);
        };
        match rest {
            [payload, rest @ ..] if payload.key() == Some("payload") => {
                borrowed(walk(&output.payload, rest))
            }
            rest => owned(shown(output), rest),
        }
    }

    fn var(&self, segs: &[Seg]) -> Found<'a> {
        match segs {
            [] => Ok(Some(Cow::Owned(Value::Object(self.vars.clone())))),
            [first, rest @ ..] => match first.key().and_then(|name| self.vars.get(name)) {
                Some(value) => borrowed(walk(value, rest)),
                None => Ok(None),
            },
        }
    }

    fn env(&self, segs: &[Seg]) -> Found<'a> {
        let text = |value: &String| Value::String(value.clone());
        match segs {
            [] => {
                let all = self
                    .env
                    .iter()
                    .map(|(name, value)| (name.clone(), text(value)));
                Ok(Some(Cow::Owned(Value::Object(all.collect()))))
            }
            [first, rest @ ..] => match first.key().and_then(|name| self.env.get(name)) {
                Some(value) => owned(text(value), rest),
                None => Ok(None),
            },
        }
    }

    fn now(&self) -> Value {
        let now = self.now.to_offset(time::UtcOffset::UTC);
        let (year, month, day) = (now.year(), u8::from(now.month()), now.day());
        let (hour, minute, second) = (now.hour(), now.minute(), now.second());
        let date = format!("{year:04}-{month:02}-{day:02}");
        let milli = now.millisecond();
        let epoch_ms = now.unix_timestamp() * 1000 + i64::from(milli);
        json!({
            "iso": format!("{date}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"),
            "epoch_ms": epoch_ms,
            "date": date,
        })
    }
}

/// An output as `node.<id>` shows it: with `data` and `errors` beside an object's own fields.
fn view(output: &Value) -> Value {
    let mut shown = output.clone();
    if let Value::Object(fields) = &mut shown {
        let view = View::of(output);
        fields.insert("data".to_owned(), view.data().clone());
        fields.insert("errors".to_owned(), view.errors());
    }
    shown
}

fn borrowed<'a>(found: Result<Option<&'a Value>, NameInArray>) -> Found<'a> {
    found.map(|found| found.map(Cow::Borrowed))
}

fn owned<'a>(made: Value, segs: &[Seg]) -> Found<'a> {
    if segs.is_empty() {
        return Ok(Some(Cow::Owned(made)));
    }
    walk(&made, segs).map(|found| found.cloned().map(Cow::Owned))
}

/// Puts a value into its place under a root, making the objects on the way.
fn graft(data: &mut Map<String, Value>, root: Root, keys: &[Box<str>], value: Value) {
    let mut at = data;
    let mut name = root.name();
    for key in keys {
        let next = at.entry(name).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(map) = next else {
            return;
        };
        at = map;
        name = key;
    }
    at.insert(name.to_owned(), value);
}
