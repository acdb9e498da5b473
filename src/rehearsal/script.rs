//! Test files: what is sent, and what must come of it. They are read strictly, as all that people write.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use humantime_serde::re::humantime;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;

use crate::model::{Headers, Problems, header};
use crate::yaml::{Document, Fields, Node, read_text};

const CASE_FIELDS: [&str; 6] = ["case", "env", "now", "user", "conversation", "script"];
const TURN_FIELDS: [&str; 12] = [
    "send",
    "flow",
    "headers",
    "user",
    "conversation",
    "now",
    "advance",
    "replies",
    "waits",
    "state",
    "error",
    "calls",
];
const CALL_FIELDS: [&str; 5] = ["call", "payload", "answer", "reads", "writes"];

/// When a case takes place that does not say it.
const DAY: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

/// A conversation that is played from its beginning, with nothing stored.
#[derive(Debug)]
pub(super) struct Case {
    pub name: String,
    pub line: usize,
    /// The variables granted to the pack.
    pub env: BTreeMap<String, String>,
    pub now: OffsetDateTime,
    pub script: Vec<Turn>,
}

/// A message and what must come of it.
#[derive(Debug)]
pub(super) struct Turn {
    pub line: usize,
    pub headers: Headers,
    /// The body, less its id.
    pub body: Map<String, Value>,
    /// The clock before it is sent.
    pub now: Option<OffsetDateTime>,
    pub advance: Duration,
    pub expected: Expected,
}

/// What must come of a message. Whatever is not written must not be there, but for the state.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Each a text, or the parts of the message that matter.
    pub replies: Vec<Value>,
    /// Where the conversation waits, as `flow/node`; otherwise it is over.
    pub waits: Option<String>,
    /// The user's state after the turn, under `flow/key`; null for what must not be there.
    pub state: Map<String, Value>,
    /// The code with which the message is put aside.
    pub error: Option<String>,
    /// The components' part, where the case plays it.
    pub calls: Option<VecDeque<Call>>,
}

/// A component's call that the case plays.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// `<flow>/<node> <component> <operation>`
    pub call: String,
    /// The parts of the payload that matter.
    pub payload: Option<Value>,
    pub answer: Value,
    /// What it reads of the state: the keys, and what it must find.
    pub reads: Map<String, Value>,
    /// What it writes to the state; null deletes.
    pub writes: Map<String, Value>,
}

/// Reads a test file, adding all that is wrong with it to the problems.
pub(super) fn read(file: &Path, problems: &mut Problems) -> Vec<Case> {
    let document = read_text(file).and_then(|text| Document::parse(file, &text));
    let document = match document {
        Ok(document) => document,
        Err(problem) => {
            problems.push(problem);
            return Vec::new();
        }
    };
    let items = document.root().items(problems).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| case(item, problems))
        .collect()
}

fn case(node: &Node<'_>, problems: &mut Problems) -> Option<Case> {
    let fields = node.fields(problems)?;
    fields.only(&CASE_FIELDS, problems);
    let name = fields.require("case", "greets a new user", problems);
    let name = name.and_then(|node| node.text(problems));
    let mut who = Map::new();
    for name in ["user", "conversation"] {
        let given = fields.get(name).and_then(|node| node.text(problems));
        who.insert(name.to_owned(), given.unwrap_or(name).into());
    }
    let script = fields.require("script", "[{send: hi, replies: [Hello!]}]", problems);
    let turns = script
        .and_then(|node| node.items(problems))
        .unwrap_or_default();
    let turns: Vec<_> = turns
        .iter()
        .filter_map(|turn| self::turn(turn, &who, problems))
        .collect();
    Some(Case {
        name: name?.to_owned(),
        line: node.line().unwrap_or_default(),
        env: variables(fields.get("env"), problems),
        now: fields
            .get("now")
            .and_then(|node| moment(node, problems))
            .unwrap_or(DAY),
        script: turns,
    })
}

fn turn(node: &Node<'_>, who: &Map<String, Value>, problems: &mut Problems) -> Option<Turn> {
    let fields = node.fields(problems)?;
    fields.only(&TURN_FIELDS, problems);
    let send = fields.require("send", "hi", problems);
    let body = body(send?, &fields, who, problems)?;
    let mut headers = Headers::default();
    for (name, value) in variables(fields.get("headers"), problems) {
        headers.push(name, value);
    }
    if let Some(flow) = fields.get("flow").and_then(|node| node.text(problems)) {
        headers.push(header::FLOW_ID, flow);
    }
    Some(Turn {
        line: node.line().unwrap_or_default(),
        headers,
        body,
        now: fields.get("now").and_then(|node| moment(node, problems)),
        advance: fields
            .get("advance")
            .and_then(|node| pause(node, problems))
            .unwrap_or_default(),
        expected: expected(&fields, problems),
    })
}

/// The body of the message: a text, or the fields that it has besides those of its sender.
fn body(
    send: &Node<'_>,
    fields: &Fields<'_>,
    who: &Map<String, Value>,
    problems: &mut Problems,
) -> Option<Map<String, Value>> {
    let mut given = |name: &str| {
        let own = fields.get(name).and_then(|node| node.text(problems));
        own.map_or_else(|| who.get(name).cloned().unwrap_or_default(), Value::from)
    };
    let (user, conversation) = (given("user"), given("conversation"));
    let mut body = Map::new();
    body.insert("channel".to_owned(), "test".into());
    body.insert(
        "from".to_owned(),
        serde_json::json!({"id": user, "kind": "user"}),
    );
    body.insert(
        "reply_scope".to_owned(),
        serde_json::json!({ "conversation": conversation }),
    );
    match send.json(problems)? {
        Value::Object(own) => body.extend(own),
        Value::String(text) => {
            body.insert("text".to_owned(), text.into());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            let problem = send.error("a message is a text, or the fields of a body");
            problems.push(problem.remedy("write `send: hi`, or `send: {metadata: {action: ok}}`"));
            return None;
        }
    }
    Some(body)
}

fn expected(fields: &Fields<'_>, problems: &mut Problems) -> Expected {
    let replies = fields.get("replies").and_then(|node| node.items(problems));
    let calls = fields.get("calls").and_then(|node| node.items(problems));
    let text = |name: &str, problems: &mut Problems| {
        let text = fields.get(name).and_then(|node| node.text(problems));
        text.map(str::to_owned)
    };
    let state = object(fields.get("state"), problems);
    if let Some(node) = fields.get("state") {
        for key in state.keys().filter(|key| !key.contains('/')) {
            let problem = node.error(format!("the state key `{key}` does not name its flow"));
            problems.push(problem.remedy(format!("write `main/{key}`, with the flow's name")));
        }
    }
    Expected {
        replies: replies
            .unwrap_or_default()
            .iter()
            .filter_map(|reply| reply.json(problems))
            .collect(),
        waits: text("waits", problems),
        error: text("error", problems),
        state,
        calls: calls.map(|calls| {
            let calls = calls.iter();
            calls
                .filter_map(|call| self::call(call, problems))
                .collect()
        }),
    }
}

fn call(node: &Node<'_>, problems: &mut Problems) -> Option<Call> {
    let fields = node.fields(problems)?;
    fields.only(&CALL_FIELDS, problems);
    let call = fields.require("call", "main/greet example.greeter run", problems);
    let answer = fields.require("answer", "{text: hello}", problems);
    Some(Call {
        call: call?.text(problems)?.to_owned(),
        payload: fields.get("payload").and_then(|node| node.json(problems)),
        answer: answer?.json(problems)?,
        reads: object(fields.get("reads"), problems),
        writes: object(fields.get("writes"), problems),
    })
}

/// Names and texts.
fn variables(node: Option<&Node<'_>>, problems: &mut Problems) -> BTreeMap<String, String> {
    let fields = node.and_then(|node| node.fields(problems));
    let mut variables = BTreeMap::new();
    for (name, value) in fields.iter().flat_map(Fields::iter) {
        if let Some(text) = value.text(problems) {
            variables.insert(name.to_owned(), text.to_owned());
        }
    }
    variables
}

/// Names and values of any kind.
fn object(node: Option<&Node<'_>>, problems: &mut Problems) -> Map<String, Value> {
    let fields = node.and_then(|node| node.fields(problems));
    let mut object = Map::new();
    for (name, value) in fields.iter().flat_map(Fields::iter) {
        if let Some(value) = value.json(problems) {
            object.insert(name.to_owned(), value);
        }
    }
    object
}

fn moment(node: &Node<'_>, problems: &mut Problems) -> Option<OffsetDateTime> {
    let parsed = OffsetDateTime::parse(node.text(problems)?, &Rfc3339);
    let problem = |_| {
        let problem = node.error("this is no point in time");
        problem.remedy("write it as `2026-03-01T09:30:00Z`")
    };
    parsed.map_err(|error| problems.push(problem(error))).ok()
}

fn pause(node: &Node<'_>, problems: &mut Problems) -> Option<Duration> {
    let parsed = humantime::parse_duration(node.text(problems)?);
    let problem = |_| {
        node.error("this is no duration")
            .remedy("write `30s`, `5m` or `2h`")
    };
    parsed.map_err(|error| problems.push(problem(error))).ok()
}
