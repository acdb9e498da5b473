//! Where a run goes after a node.

use std::borrow::Cow;
use std::collections::BTreeMap;

use greentic_types::Routing as Source;
use serde_json::Value;

use super::budget::{Budget, Excess};
use super::condition::{Comparison, Condition, Sight, Work};
use super::findings::Findings;
use super::graph::NodeIx;
use super::output::Output;
use super::payload;
use super::scope::Scope;
use super::template::excerpt;

/// Ways in which a node that went well may have ended, most usual first.
const GOOD_EVENTS: [&str; 3] = ["on_success", "on_complete", "on_submit"];
/// Ways in which a node that failed may have ended, most usual first.
const BAD_EVENTS: [&str; 3] = ["on_error", "on_cancel", "on_timeout"];

/// More routes than any node has.
const MAX_ROUTES: usize = 1_000;

/// The compiled routing of a node.
#[derive(Debug)]
pub(super) enum Routing {
    /// Always this node.
    To(NodeIx),
    /// The flow is over.
    End,
    /// By the status of the output.
    Branch {
        /// The node for each status.
        on_status: BTreeMap<String, NodeIx>,
        /// The node for any other.
        default: Option<NodeIx>,
    },
    /// The first route that is open.
    Routes {
        /// In order.
        routes: Vec<Route>,
        /// Whether the node waits for another message when none is open.
        waits: bool,
        /// How the node ends when it goes well.
        good: &'static str,
        /// How it ends when it fails.
        bad: &'static str,
        /// Whether a route asks for a failure, and so takes care of it.
        catches_errors: bool,
    },
}

/// One of several routes.
#[derive(Debug)]
pub(super) struct Route {
    when: When,
    status: Option<String>,
    to: Option<Target>,
}

#[derive(Debug)]
enum When {
    Always,
    /// A message came that pressed no button of this node.
    Message,
    /// The condition, and how it is written, or its beginning.
    Holds(Condition, Box<str>),
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Node(NodeIx),
    End,
}

/// Where a run goes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To this node.
    To(NodeIx),
    /// Nowhere: the flow is over.
    End,
    /// Nowhere yet: the node waits for another message.
    Stay,
}

/// A condition that takes too much.
#[derive(Debug)]
pub(super) struct Halt {
    pub(super) excess: Excess,
    /// How the condition is written, or its beginning.
    pub(super) condition: String,
}

impl Routing {
    /// Returns whether it leads to the same place whatever the run has, so that nothing has to be worked out.
    pub(super) fn is_fixed(&self) -> bool {
        match self {
            Self::To(_) | Self::End => true,
            Self::Branch { .. } | Self::Routes { .. } => false,
        }
    }

    /// Compiles a routing. `node` finds a node of the flow by its id.
    pub(super) fn compile(
        source: &Source,
        node: impl Fn(&str) -> Option<NodeIx>,
        findings: &mut Findings,
    ) -> Self {
        let find = |id: &str, findings: &mut Findings| {
            let found = node(id);
            if found.is_none() {
                let error = format!("its routing leads to `{id}`, which the flow lacks");
                findings.error(error, "add the node or correct the name");
            }
            found
        };
        match source {
            Source::End | Source::Reply => Self::End,
            Source::Next { node_id } => {
                find(node_id.as_str(), findings).map_or(Self::End, Self::To)
            }
            Source::Branch { on_status, default } => Self::Branch {
                on_status: on_status
                    .iter()
                    .filter_map(|(status, id)| Some((status.clone(), find(id.as_str(), findings)?)))
                    .collect(),
                default: default.as_ref().and_then(|id| find(id.as_str(), findings)),
            },
            Source::Custom(Value::Array(entries)) => {
                // `out` is the end by convention, unless the flow has a node of that name.
                let target = |id: &str, findings: &mut Findings| match id {
                    "out" if node(id).is_none() => Some(Target::End),
                    id => find(id, findings).map(Target::Node),
                };
                Self::compile_routes(entries, target, findings)
            }
            Source::Custom(_) => {
                let warning = "its custom routing is no list, so the flow ends here";
                findings.warn(warning, "write a list of routes, or `end`");
                Self::End
            }
        }
    }

    fn compile_routes(
        entries: &[Value],
        find: impl Fn(&str, &mut Findings) -> Option<Target>,
        findings: &mut Findings,
    ) -> Self {
        let mut routes: Vec<Route> = Vec::with_capacity(entries.len().min(MAX_ROUTES));
        if entries.len() > MAX_ROUTES {
            let count = entries.len();
            findings.error(
                format!("it has {count} routes, and a node may have {MAX_ROUTES}"),
                "divide them between several nodes",
            );
        }
        for (at, entry) in entries.iter().take(MAX_ROUTES).enumerate() {
            if routes.last().is_some_and(Route::is_always_open) {
                let warning = format!("route {at} is never taken: the one before it always is");
                findings.warn(warning, "put the route without a condition last");
            }
            let route = Route::compile((at, entry), &find, findings);
            if route.to.is_none() && matches!(route.when, When::Always) {
                let warning = format!("route {at} is ignored: it leads nowhere");
                findings.warn(warning, "give it `to`, `out: true` or `reply: true`");
                continue;
            }
            routes.push(route);
        }
        let asked: Vec<_> = routes.iter().flat_map(Route::events).collect();
        let first_asked = |events: [&'static str; 3]| {
            let first = events.into_iter().find(|event| asked.contains(event));
            first.unwrap_or(events[0])
        };
        Self::Routes {
            waits: routes
                .iter()
                .any(|route| !matches!(route.when, When::Always)),
            good: first_asked(GOOD_EVENTS),
            bad: first_asked(BAD_EVENTS),
            catches_errors: entries.iter().any(asks_for_failure),
            routes,
        }
    }

    /// Every node that it may lead to.
    pub(super) fn targets(&self) -> Vec<NodeIx> {
        match self {
            Self::To(node) => vec![*node],
            Self::End => Vec::new(),
            Self::Branch { on_status, default } => {
                on_status.values().chain(default).copied().collect()
            }
            Self::Routes { routes, .. } => {
                let nodes = routes.iter().filter_map(|route| match route.to {
                    Some(Target::Node(node)) => Some(node),
                    Some(Target::End) | None => None,
                });
                nodes.collect()
            }
        }
    }

    /// Whether the node may wait for another message.
    pub(super) fn may_stay(&self) -> bool {
        match self {
            Self::Routes { routes, waits, .. } => {
                *waits && !routes.iter().any(Route::is_always_open)
            }
            Self::To(_) | Self::End | Self::Branch { .. } => false,
        }
    }

    /// Returns whether the node waits for a message, and a route looks at what the user answers in it.
    pub(super) fn asks_user(&self) -> bool {
        let Self::Routes { routes, .. } = self else {
            return false;
        };
        self.may_stay() && routes.iter().any(|route| route.looks_at_message())
    }

    /// Whether the flow may end here.
    pub(super) fn may_end(&self) -> bool {
        match self {
            Self::To(_) => false,
            Self::End => true,
            Self::Branch { default, .. } => default.is_none(),
            Self::Routes { routes, waits, .. } => {
                let ends = |route: &Route| route.to == Some(Target::End);
                routes.iter().any(ends) || !(*waits || routes.iter().any(Route::is_always_open))
            }
        }
    }

    /// Whether a route takes care of the node's failure.
    pub(super) fn catches_errors(&self) -> bool {
        matches!(self, Self::Routes { catches_errors, .. } if *catches_errors)
    }

    /// Where to go now. `scope` has the node's own output as `prev`; `resumed` tells that the message came to this node.
    pub(super) fn next(
        &self,
        scope: &Scope<'_>,
        output: &Output,
        resumed: bool,
        budget: &mut Budget,
    ) -> Result<Next, Halt> {
        match self {
            Self::To(node) => Ok(Next::To(*node)),
            Self::End => Ok(Next::End),
            Self::Branch { on_status, default } => {
                let status = status(&output.payload);
                let of_status = status.and_then(|status| on_status.get(&*status));
                let to = of_status.or(default.as_ref());
                Ok(to.map_or(Next::End, |node| Next::To(*node)))
            }
            Self::Routes {
                routes,
                waits,
                good,
                bad,
                ..
            } => {
                let usual = if output.is_failed() { bad } else { good };
                let sight = Sight {
                    scope,
                    output: &output.payload,
                    event: output.outcome().unwrap_or(usual),
                };
                let mut work = Work::new(budget);
                for route in routes {
                    let open = route.is_open(&sight, resumed, &mut work);
                    match (open.map_err(|excess| route.halt(excess))?, route.to) {
                        (true, Some(Target::Node(node))) => return Ok(Next::To(node)),
                        (true, Some(Target::End)) => return Ok(Next::End),
                        (true, None) | (false, _) => {}
                    }
                }
                Ok(if *waits { Next::Stay } else { Next::End })
            }
        }
    }
}

impl Route {
    fn compile(
        (at, entry): (usize, &Value),
        find: impl Fn(&str, &mut Findings) -> Option<Target>,
        findings: &mut Findings,
    ) -> Self {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let is_set = |name: &str| entry.get(name).and_then(Value::as_bool) == Some(true);
        let to = match text("to").or_else(|| text("next")) {
            Some(id) => find(id, findings),
            None => (is_set("out") || is_set("reply")).then_some(Target::End),
        };
        let when = match text("condition") {
            _ if is_set("on_message") => When::Message,
            Some(source) => {
                let condition = compile_condition((at, source), findings);
                When::Holds(condition, excerpt(source).into())
            }
            None => When::Always,
        };
        Self {
            when,
            status: text("status").map(str::to_owned),
            to,
        }
    }

    fn is_always_open(&self) -> bool {
        matches!(self.when, When::Always) && self.status.is_none() && self.to.is_some()
    }

    fn looks_at_message(&self) -> bool {
        match &self.when {
            When::Always => false,
            When::Message => true,
            When::Holds(condition, _) => condition
                .comparisons()
                .into_iter()
                .any(Comparison::looks_at_message),
        }
    }

    fn is_open(
        &self,
        sight: &Sight<'_>,
        resumed: bool,
        work: &mut Work<'_>,
    ) -> Result<bool, Excess> {
        let holds = match &self.when {
            When::Always => true,
            When::Message => resumed && !payload::has_action(sight.scope.entry),
            When::Holds(condition, _) => condition.holds(sight, work)?,
        };
        let wanted = self.status.as_deref();
        Ok(
            holds
                && wanted.is_none_or(|wanted| status(sight.output).is_some_and(|is| is == wanted)),
        )
    }

    fn halt(&self, excess: Excess) -> Halt {
        let condition = match &self.when {
            When::Holds(_, source) => source.clone().into(),
            When::Always | When::Message => String::new(),
        };
        Halt { excess, condition }
    }

    fn events(&self) -> Vec<&str> {
        match &self.when {
            When::Holds(condition, _) => condition
                .comparisons()
                .into_iter()
                .filter_map(|c| c.event())
                .collect(),
            When::Always | When::Message => Vec::new(),
        }
    }
}

/// Whether a route is for a node that failed, as its `event` or its condition says.
fn asks_for_failure(entry: &Value) -> bool {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    text("event").is_some_and(|event| BAD_EVENTS.contains(&event))
        || text("condition").is_some_and(|source| BAD_EVENTS.iter().any(|e| source.contains(e)))
}

fn compile_condition((at, source): (usize, &str), findings: &mut Findings) -> Condition {
    match Condition::compile(source) {
        Ok(condition) => {
            findings.uses.extend(&condition.uses());
            let doubt = condition.doubt();
            if let Some((doubt, remedy)) = doubt {
                let source = excerpt(source);
                findings.warn(
                    format!("condition `{source}` of route {at}: {doubt}"),
                    remedy,
                );
            }
            condition
        }
        Err(fault) => {
            findings.error(
                format!(
                    "condition `{}` of route {at} is not valid: {fault}",
                    excerpt(source)
                ),
                "write `path == \"text\"`, joined with `and`, `or`, `not` and brackets",
            );
            Condition::Never
        }
    }
}

/// The status that an output reports.
fn status(output: &Value) -> Option<Cow<'_, str>> {
    match output.get("status")? {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(flag) => Some(flag.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
