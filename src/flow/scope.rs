//! What templates and conditions of one step look at. Nothing is copied until something is found; what the roots show
//! beyond the run's own values is made only when it is asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::budget::{Budget, Excess};
use super::output::{Output, View};
use super::path::{NameInArray, Reference, Root, Seg, Uses, walk};
use super::payload;

/// The outputs of the nodes that ran, by node id.
pub(super) type Outputs = BTreeMap<Arc<str>, Output>;

/// What was found at a place.
pub(super) type Found<'a> = Result<Option<Cow<'a, Value>>, Unfound>;

/// Why a place was not looked up to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfound {
    /// A name was looked up in an array.
    Name(NameInArray),
    /// What is there takes too much to make.
    Excess(Excess),
}

impl From<NameInArray> for Unfound {
    fn from(name: NameInArray) -> Self {
        Self::Name(name)
    }
}

impl From<Excess> for Unfound {
    fn from(excess: Excess) -> Self {
        Self::Excess(excess)
    }
}

impl Unfound {
    /// Takes a name in an array for nothing that is there.
    pub(super) fn or_nothing<T>(self) -> Result<Option<T>, Excess> {
        match self {
            Self::Name(_) => Ok(None),
            Self::Excess(excess) => Err(excess),
        }
    }
}

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
    /// What templates find at a place. What is borrowed is not charged for its size; what has to be made for it is.
    pub(super) fn find(&self, reference: &Reference, budget: &mut Budget) -> Found<'a> {
        match reference {
            Reference::Everything => Ok(Some(Cow::Owned(self.everything(budget)?))),
            Reference::At(root, segs) => self.find_under(*root, segs, budget),
            Reference::Nowhere => Ok(None),
        }
    }

    pub(super) fn find_under(&self, root: Root, segs: &[Seg], budget: &mut Budget) -> Found<'a> {
        let names: usize = segs.iter().filter_map(Seg::key).map(str::len).sum();
        budget.step(1 + segs.len() as u64)?;
        budget.step_text(names)?;
        match root {
            Root::Entry | Root::In if segs.is_empty() => {
                let whole = payload::whole_merged(self.entry, budget)?;
                Ok(Some(Cow::Owned(whole)))
            }
            Root::Entry | Root::In => borrowed(payload::merged(self.entry, segs)),
            Root::Prev => borrowed(walk(self.prev, segs)),
            Root::Node => self.node(segs, budget),
            Root::State => self.state(segs, budget),
            Root::Vars => self.var(segs, budget),
            Root::Now => owned(self.now(), segs),
            Root::Env => self.env(segs, budget),
            Root::Input | Root::Result => match self.given {
                Some(given) => borrowed(walk(given, segs)),
                None => Ok(None),
            },
        }
    }

    fn everything(&self, budget: &mut Budget) -> Result<Value, Excess> {
        let given = [Root::Input, Root::Result].into_iter();
        let given = given.filter(|_| self.given.is_some());
        let roots = Root::ALL.into_iter().chain(given);
        let of_root = |root: Root| {
            let value = self.whole(root, budget)?;
            Ok((root.name().to_owned(), value.unwrap_or_default()))
        };
        roots
            .map(of_root)
            .collect::<Result<_, _>>()
            .map(Value::Object)
    }

    /// A copy of all that is under a root.
    fn whole(&self, root: Root, budget: &mut Budget) -> Result<Option<Value>, Excess> {
        match self.find_under(root, &[], budget) {
            Ok(Some(found)) => copied(found, budget).map(Some),
            Ok(None) => Ok(None),
            Err(unfound) => unfound.or_nothing(),
        }
    }

    /// The data for a template that is run as a whole: only what it may look at, in its place.
    pub(super) fn extract(&self, uses: &Uses, budget: &mut Budget) -> Result<Value, Excess> {
        if uses.everything {
            return self.everything(budget);
        }
        let mut data = Map::new();
        let mut whole: Option<Root> = None;
        for (root, keys) in &uses.places {
            if whole == Some(*root) {
                continue;
            }
            budget.step(8)?;
            let names = std::iter::once(root.name()).chain(keys.iter().map(|key| &**key));
            let (keys, found) = match self.find(&Reference::from_names(names), budget) {
                Ok(Some(found)) => (keys.as_slice(), Some(copied(found, budget)?)),
                Ok(None) => continue,
                // The template may fail on this one, if it gets there: it needs what is really there.
                Err(Unfound::Name(_)) => {
                    whole = Some(*root);
                    (&[][..], self.whole(*root, budget)?)
                }
                Err(Unfound::Excess(excess)) => return Err(excess),
            };
            if let Some(found) = found {
                graft(&mut data, *root, keys, found);
            }
        }
        Ok(Value::Object(data))
    }

    fn node(&self, segs: &[Seg], budget: &mut Budget) -> Found<'a> {
        let [first, rest @ ..] = segs else {
            let mut all = Map::new();
            for (id, output) in self.outputs {
                all.insert(id.to_string(), view(&output.payload, budget)?);
            }
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
            [] => Ok(Some(Cow::Owned(view(payload, budget)?))),
            [data, rest @ ..] if data.key() == Some("data") => {
                let view = View::of(payload, budget)?;
                borrowed(walk(view.data(), rest))
            }
            [errors, rest @ ..] if errors.key() == Some("errors") => {
                let view = View::of(payload, budget)?;
                owned(view.errors(), rest)
            }
            rest => borrowed(walk(payload, rest)),
        }
    }

    fn state(&self, segs: &[Seg], budget: &mut Budget) -> Found<'a> {
        let [first, rest @ ..] = segs else {
            let nodes = self.state_nodes(&[], budget)?;
            budget.take_value(self.entry)?;
            budget.take_value(self.input)?;
            return Ok(Some(Cow::Owned(json!({
                "entry": self.entry,
                "input": self.input,
                "nodes": nodes.map_or(Value::Null, Cow::into_owned),
                "redirect_count": self.jumps,
                "park_turns": {},
                "pending_agent_await": [],
            }))));
        };
        match first.key() {
            Some("entry") => borrowed(walk(self.entry, rest)),
            Some("input") => borrowed(walk(self.input, rest)),
            Some("nodes") => self.state_nodes(rest, budget),
            Some("redirect_count") => owned(json!(self.jumps), rest),
            Some("park_turns") => owned(json!({}), rest),
            Some("pending_agent_await") => owned(json!([]), rest),
            _ => Ok(None),
        }
    }

    fn state_nodes(&self, segs: &[Seg], budget: &mut Budget) -> Found<'a> {
        let mut shown = |output: &Output| {
            budget.take_value(&output.payload)?;
            budget.take_value(output.meta())?;
            Ok::<_, Excess>(
                json!({"ok": !output.is_failed(), "payload": *output.payload, "meta": output.meta()}),
            )
        };
        let [first, rest @ ..] = segs else {
            let mut all = Map::new();
            for (id, output) in self.outputs {
                all.insert(id.to_string(), shown(output)?);
            }
            return Ok(Some(Cow::Owned(Value::Object(all))));
        };
        let Some(output) = first.key().and_then(|id| self.outputs.get(id)) else {
            return Ok(None);
        };
        let Some((field, rest)) = rest.split_first() else {
            return Ok(Some(Cow::Owned(shown(output)?)));
        };
        match field.key() {
            Some("payload") => borrowed(walk(&output.payload, rest)),
            Some("meta") => borrowed(walk(output.meta(), rest)),
            Some("ok") => owned(json!(!output.is_failed()), rest),
            _ => Ok(None),
        }
    }

    fn var(&self, segs: &[Seg], budget: &mut Budget) -> Found<'a> {
        match segs {
            [] => {
                for (name, value) in self.vars {
                    budget.take(name.len())?;
                    budget.take_value(value)?;
                }
                Ok(Some(Cow::Owned(Value::Object(self.vars.clone()))))
            }
            [first, rest @ ..] => match first.key().and_then(|name| self.vars.get(name)) {
                Some(value) => borrowed(walk(value, rest)),
                None => Ok(None),
            },
        }
    }

    fn env(&self, segs: &[Seg], budget: &mut Budget) -> Found<'a> {
        let text = |value: &String| Value::String(value.clone());
        match segs {
            [] => {
                for (name, value) in self.env {
                    budget.step(1)?;
                    budget.take(name.len() + value.len())?;
                }
                let all = self
                    .env
                    .iter()
                    .map(|(name, value)| (name.clone(), text(value)));
                Ok(Some(Cow::Owned(Value::Object(all.collect()))))
            }
            [first, rest @ ..] => match first.key().and_then(|name| self.env.get(name)) {
                Some(value) => {
                    budget.take(value.len())?;
                    owned(text(value), rest)
                }
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
fn view(output: &Value, budget: &mut Budget) -> Result<Value, Excess> {
    budget.take_value(output)?;
    let mut shown = output.clone();
    if let Value::Object(fields) = &mut shown {
        let view = View::of(output, budget)?;
        budget.take_value(view.data())?;
        fields.insert("data".to_owned(), view.data().clone());
        fields.insert("errors".to_owned(), view.errors());
    }
    Ok(shown)
}

/// The value itself. What has been made is charged for already.
pub(super) fn copied(found: Cow<'_, Value>, budget: &mut Budget) -> Result<Value, Excess> {
    if let Cow::Borrowed(value) = found {
        budget.take_value(value)?;
    }
    Ok(found.into_owned())
}

fn borrowed<'a>(found: Result<Option<&'a Value>, NameInArray>) -> Found<'a> {
    Ok(found?.map(Cow::Borrowed))
}

fn owned<'a>(made: Value, segs: &[Seg]) -> Found<'a> {
    if segs.is_empty() {
        return Ok(Some(Cow::Owned(made)));
    }
    Ok(walk(&made, segs)?.cloned().map(Cow::Owned))
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
