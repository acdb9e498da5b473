//! The machine: runs one node after the other, and carries out what they came to.

use std::sync::Arc;

use serde_json::Value;

use super::error::{FlowError, Place};
use super::frame::{Frame, closing};
use super::graph::{FlowIx, Node, NodeIx, Program};
use super::nodes::{Call, Jump, Outcome, Then};
use super::nodes_run::NodesRun;
use super::output::Output;
use super::payload;
use super::room::Room;
use super::routing::Next;
use super::visit::{Memory, Visit};
use super::{Ask, Context, Reply};
use crate::model::{Invocation, MAX_DEPTH, is_too_deep};

/// What comes after a node.
pub(super) enum Progress {
    /// The next node.
    On,
    /// An answer, which the node needs to be done.
    Asks(Ask, Pending),
    /// The next message.
    Waits(Parking),
    /// Nothing.
    Over,
}

impl Progress {
    fn asks_state(program: &Program, flow: FlowIx, key: String) -> Self {
        let ask = Ask::State {
            flow: program.flows[flow].id.clone(),
            key: key.clone(),
        };
        Self::Asks(ask, Pending::State { flow, key })
    }
}

/// What a node waits to be told.
#[derive(Debug)]
pub(super) enum Pending {
    /// The state under this key of this flow.
    State {
        /// The flow that owns it.
        flow: FlowIx,
        /// The key.
        key: String,
    },
    /// What the component that it called came to.
    Component,
}

/// How a run waits.
pub(super) struct Parking {
    /// The node that it goes on with.
    pub(super) next: NodeIx,
    /// What was `prev` when this node ran, in case it runs again.
    pub(super) before: Arc<Value>,
    pub(super) reason: Option<String>,
}

/// What a node that is done came to: a step of the turn, or the end of its flow with what that says last.
enum Settled {
    Step(Progress),
    Ended(Option<Arc<Value>>),
}

/// A run inside a turn.
#[derive(Debug)]
pub(super) struct Machine {
    /// The flow that is running.
    pub(super) frame: Frame,
    /// The flows that have called it, the run's own first.
    callers: Vec<Frame>,
    /// The user's state as the turn knows it.
    pub(super) memory: Memory,
    pub(super) logs: Vec<Value>,
    nodes_run: NodesRun,
    room: Room,
    /// How many components the turn has called.
    called: u32,
}

impl Machine {
    /// A machine that begins with this frame.
    pub(super) fn new(program: &Program, frame: Frame) -> Box<Self> {
        Box::new(Self {
            frame,
            callers: Vec::new(),
            memory: Memory::default(),
            logs: Vec::new(),
            nodes_run: NodesRun::default(),
            room: Room::new(program.limits.rendered_bytes),
            called: 0,
        })
    }

    /// The bytes that its templates have produced.
    pub(super) fn rendered_bytes(&self, program: &Program) -> u64 {
        program
            .limits
            .rendered_bytes
            .saturating_sub(self.room.left()) as u64
    }

    /// Runs the next node.
    pub(super) fn run_node(&mut self, cx: &Context<'_>) -> Result<Progress, FlowError> {
        self.nodes_run
            .count(cx.program, (self.frame.flow, self.frame.node))?;
        let node = self.node(cx.program);
        let outcome = node.kind.run(&mut self.visit(cx))?;
        self.settle(cx, outcome)
    }

    /// Goes on with what the component that the node called came to.
    pub(super) fn answer(
        &mut self,
        cx: &Context<'_>,
        output: Value,
        state: Vec<(String, Option<Value>)>,
    ) -> Result<Progress, FlowError> {
        let node = self.node(cx.program);
        let mut visit = self.visit(cx);
        let values = state.iter().filter_map(|(_, value)| value.as_ref());
        if values.chain([&output]).any(is_too_deep) {
            let reason = format!("it nests deeper than {MAX_DEPTH} levels");
            return Err(visit.misanswered(reason));
        }
        for (key, value) in state {
            visit.remember(&key, value);
        }
        let outcome = node.kind.answered(&mut visit, output)?;
        self.settle(cx, outcome)
    }

    /// What the node that runs sees, and what it may change.
    fn visit<'a>(&'a mut self, cx: &Context<'a>) -> Visit<'a> {
        Visit {
            program: cx.program,
            at: (self.frame.flow, self.frame.node),
            scope: self.frame.scope(cx, &self.frame.prev),
            room: &mut self.room,
            memory: &mut self.memory,
        }
    }

    /// Carries out what a node came to.
    pub(super) fn settle(
        &mut self,
        cx: &Context<'_>,
        outcome: Outcome,
    ) -> Result<Progress, FlowError> {
        let mut settled = match outcome {
            Outcome::Read { flow, key } => return Ok(Progress::asks_state(cx.program, flow, key)),
            Outcome::Invoke(call) => {
                let invocation = self.invocation(cx.program, call);
                return Ok(Progress::Asks(
                    Ask::Component(invocation),
                    Pending::Component,
                ));
            }
            Outcome::Call { flow, input } => return self.call(cx.program, flow, input),
            Outcome::Done { output, then } => self.finish_node(cx, output, then)?,
        };
        loop {
            let last = match settled {
                Settled::Step(progress) => return Ok(progress),
                Settled::Ended(last) => last,
            };
            let Some(caller) = self.callers.pop() else {
                self.say_last(cx.program, last.as_deref());
                return Ok(Progress::Over);
            };
            let called = std::mem::replace(&mut self.frame, caller);
            settled = self.finish_node(
                cx,
                called.into_value(last.as_deref()).into(),
                Then::Continue,
            )?;
        }
    }

    fn finish_node(
        &mut self,
        cx: &Context<'_>,
        mut output: Output,
        then: Then,
    ) -> Result<Settled, FlowError> {
        let node = self.node(cx.program);
        let resumed = std::mem::take(&mut self.frame.resumed);
        let shows_first = std::mem::take(&mut self.frame.shows_first);
        if resumed {
            self.frame.attach_answers(node, &mut output);
        }
        let payload = output.payload.clone();
        let before = std::mem::replace(&mut self.frame.prev, payload);
        self.frame.outputs.insert(node.name.clone(), output.clone());
        let then = self.note(then);
        self.bind(cx, node)?;
        match then {
            Then::Wait { reason } => self.wait(cx, &output, before, reason),
            Then::Jump(jump) => self.jump(cx.program, &jump),
            Then::Respond(said) => {
                self.say(cx.program, said);
                Ok(Settled::Ended(None))
            }
            Then::Say(said) => self.go_on(
                cx,
                &output,
                Arrival {
                    resumed,
                    shows_first,
                    before,
                },
                Some(said),
            ),
            Then::Continue | Then::Log(_) | Then::Assign(..) => self.go_on(
                cx,
                &output,
                Arrival {
                    resumed,
                    shows_first,
                    before,
                },
                None,
            ),
        }
    }
}

/// What the routes of a card that nobody has seen yet find in the message.
static NO_ANSWER: Value = Value::Null;

/// How the turn came to a node.
struct Arrival {
    /// The turn's message came to this very node.
    resumed: bool,
    /// The turn's message named the node, and answers nothing.
    shows_first: bool,
    /// The output that was `prev` before the node ran.
    before: Arc<Value>,
}

impl Machine {
    /// Carries out at once what the node's own bindings may look at.
    fn note(&mut self, then: Then) -> Then {
        match then {
            Then::Assign(name, value) => {
                self.frame.vars.insert(name, value);
                Then::Continue
            }
            Then::Log(line) => {
                self.logs.push(line);
                Then::Continue
            }
            then @ (Then::Continue
            | Then::Say(_)
            | Then::Wait { .. }
            | Then::Jump(_)
            | Then::Respond(_)) => then,
        }
    }

    /// Sets the variables that the node takes from its output.
    fn bind(&mut self, cx: &Context<'_>, node: &Node) -> Result<(), FlowError> {
        for (name, binding) in &node.vars_out {
            let value = self.visit(cx).render(binding)?;
            self.frame.vars.insert(name.clone(), value);
        }
        Ok(())
    }

    /// Where the run goes after a node that is done. What the node says is kept back when a message came to it: if that
    /// opened a route, the user has answered and need not be asked again; if not, it is said once more.
    fn go_on(
        &mut self,
        cx: &Context<'_>,
        output: &Output,
        arrival: Arrival,
        said: Option<Value>,
    ) -> Result<Settled, FlowError> {
        let Arrival {
            resumed,
            shows_first,
            before,
        } = arrival;
        let node = self.node(cx.program);
        let payload = &output.payload;
        let mut scope = self.frame.scope(cx, payload);
        if shows_first {
            scope.entry = &NO_ANSWER;
        }
        let next = match shows_first && !output.is_failed() {
            true => Next::Stay,
            false => node.routing.next(&scope, output, resumed),
        };
        if let Some(said) = said
            && (!resumed || next == Next::Stay)
        {
            self.say(cx.program, said);
        }
        // One press counts for one card, whether the card was waited at or passed on the way.
        if resumed || (node.shows_card && node.routing.may_stay()) {
            payload::consume_action(&mut self.frame.entry);
        }
        match next {
            Next::To(next) => {
                self.frame.node = next;
                Ok(Settled::Step(Progress::On))
            }
            Next::End => Ok(Settled::Ended(
                node.kind.ends_with_reply().then(|| payload.clone()),
            )),
            Next::Stay => self.stay(cx.program, payload, before),
        }
    }

    /// Waits at the node itself for a message that opens one of its routes.
    fn stay(
        &mut self,
        program: &Program,
        payload: &Value,
        before: Arc<Value>,
    ) -> Result<Settled, FlowError> {
        self.forbid_in_call(program)?;
        let node = self.node(program);
        if node.kind.prompts() {
            self.say_last(program, Some(payload));
        }
        let reason = Some(format!("awaiting user submit at node `{}`", node.id));
        let next = self.frame.node;
        Ok(Settled::Step(Progress::Waits(Parking {
            next,
            before,
            reason,
        })))
    }

    fn wait(
        &mut self,
        cx: &Context<'_>,
        output: &Output,
        before: Arc<Value>,
        reason: Option<String>,
    ) -> Result<Settled, FlowError> {
        self.forbid_in_call(cx.program)?;
        let scope = self.frame.scope(cx, &output.payload);
        match self.node(cx.program).routing.next(&scope, output, false) {
            Next::To(next) => Ok(Settled::Step(Progress::Waits(Parking {
                next,
                before,
                reason,
            }))),
            Next::End | Next::Stay => Err(FlowError::RouteMissing {
                place: self.place(cx.program),
            }),
        }
    }

    fn forbid_in_call(&self, program: &Program) -> Result<(), FlowError> {
        if self.callers.is_empty() {
            return Ok(());
        }
        Err(FlowError::CallCannotWait {
            place: self.place(program),
        })
    }

    fn jump(&mut self, program: &Program, jump: &Jump) -> Result<Settled, FlowError> {
        let limit = jump.max.unwrap_or(program.limits.jumps);
        if self.frame.jumps >= limit {
            return Err(FlowError::RedirectLimit {
                place: self.place(program),
                limit,
            });
        }
        self.frame.jumps += 1;
        self.frame.jumped_with = Some(self.frame.prev.clone());
        self.frame.node = jump.node.unwrap_or(program.flows[jump.flow].entry);
        self.frame.flow = jump.flow;
        Ok(Settled::Step(Progress::On))
    }

    fn call(
        &mut self,
        program: &Program,
        flow: FlowIx,
        input: Value,
    ) -> Result<Progress, FlowError> {
        let limit = program.limits.calls;
        if self.callers.len() >= limit as usize {
            return Err(FlowError::CallDepth {
                place: self.place(program),
                limit,
            });
        }
        let called = Frame::start(program, flow, Arc::new(input));
        self.callers
            .push(std::mem::replace(&mut self.frame, called));
        Ok(Progress::On)
    }

    fn invocation(&mut self, program: &Program, call: Call) -> Invocation {
        let Place { flow, node } = self.place(program);
        let ordinal = self.called;
        self.called += 1;
        Invocation {
            component: call.component,
            operation: call.operation,
            flow,
            node: node.to_string(),
            payload: call.payload,
            form: call.form,
            ordinal,
        }
    }

    fn say(&mut self, program: &Program, payload: Value) {
        let flow = program.flows[self.frame.flow].id.clone();
        self.frame.said.push(Reply { flow, payload });
    }

    fn say_last(&mut self, program: &Program, last: Option<&Value>) {
        for payload in closing(&self.frame.said, last) {
            self.say(program, payload);
        }
    }

    fn node<'p>(&self, program: &'p Program) -> &'p Node {
        program.node(self.frame.flow, self.frame.node)
    }

    fn place(&self, program: &Program) -> Place {
        program.place(self.frame.flow, self.frame.node)
    }
}
