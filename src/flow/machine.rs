//! The machine: runs one node after the other, and carries out what they came to.

use std::sync::Arc;

use serde_json::Value;

use super::error::{FlowError, Place};
use super::frame::{Frame, closing};
use super::graph::{FlowIx, Node, NodeIx, Program};
use super::nodes::{Jump, Outcome, Pending, Then};
use super::nodes_run::NodesRun;
use super::payload;
use super::room::Room;
use super::routing::Next;
use super::visit::{Memory, Visit};
use super::{Context, Reply};

/// What comes after a node.
pub(super) enum Progress {
    /// The next node.
    On,
    /// An answer, which the node needs to be done.
    Asks(Pending),
    /// The next message.
    Waits(Parking),
    /// Nothing.
    Over,
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
        })
    }

    /// Runs the next node.
    pub(super) fn run_node(&mut self, cx: &Context<'_>) -> Result<Progress, FlowError> {
        self.nodes_run
            .count(cx.program, (self.frame.flow, self.frame.node))?;
        let node = self.node(cx.program);
        let mut visit = Visit {
            program: cx.program,
            at: (self.frame.flow, self.frame.node),
            scope: self.frame.scope(cx, &self.frame.prev),
            room: &mut self.room,
            memory: &mut self.memory,
        };
        let outcome = node.kind.run(&mut visit)?;
        self.settle(cx, outcome)
    }

    /// Carries out what a node came to.
    pub(super) fn settle(
        &mut self,
        cx: &Context<'_>,
        outcome: Outcome,
    ) -> Result<Progress, FlowError> {
        let mut settled = match outcome {
            Outcome::Ask(pending) => return Ok(Progress::Asks(pending)),
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
            settled = self.finish_node(cx, called.into_value(last.as_deref()), Then::Continue)?;
        }
    }

    fn finish_node(
        &mut self,
        cx: &Context<'_>,
        mut output: Value,
        then: Then,
    ) -> Result<Settled, FlowError> {
        let node = self.node(cx.program);
        let resumed = std::mem::take(&mut self.frame.resumed);
        if resumed {
            self.frame.attach_answers(node, &mut output);
        }
        let output = Arc::new(output);
        let before = std::mem::replace(&mut self.frame.prev, output.clone());
        self.frame.outputs.insert(node.name.clone(), output);
        let then = match then {
            Then::Assign(name, value) => {
                self.frame.vars.insert(name, value);
                Then::Continue
            }
            Then::Log(line) => {
                self.logs.push(line);
                Then::Continue
            }
            then @ (Then::Continue | Then::Say(_) | Then::Wait { .. } | Then::Jump(_)) => then,
        };
        self.bind(cx, node)?;
        match then {
            Then::Wait { reason } => self.wait(cx, node, before, reason),
            Then::Jump(jump) => self.jump(cx.program, &jump),
            Then::Say(said) => self.go_on(cx, Resumed { resumed, before }, Some(said)),
            Then::Continue | Then::Log(_) | Then::Assign(..) => {
                self.go_on(cx, Resumed { resumed, before }, None)
            }
        }
    }
}

/// Whether the turn's message came to this very node, and what was `prev` before it ran.
struct Resumed {
    resumed: bool,
    before: Arc<Value>,
}

impl Machine {
    /// Sets the variables that the node takes from its output.
    fn bind(&mut self, cx: &Context<'_>, node: &Node) -> Result<(), FlowError> {
        for (name, binding) in &node.vars_out {
            let mut visit = Visit {
                program: cx.program,
                at: (self.frame.flow, self.frame.node),
                scope: self.frame.scope(cx, &self.frame.prev),
                room: &mut self.room,
                memory: &mut self.memory,
            };
            let value = visit.render(binding)?;
            self.frame.vars.insert(name.clone(), value);
        }
        Ok(())
    }

    /// Where the run goes after a node that is done. What the node says is kept back when a message came to it: if that
    /// opened a route, the user has answered and need not be asked again; if not, it is said once more.
    fn go_on(
        &mut self,
        cx: &Context<'_>,
        Resumed { resumed, before }: Resumed,
        said: Option<Value>,
    ) -> Result<Settled, FlowError> {
        let node = self.node(cx.program);
        let output = self.frame.prev.clone();
        let scope = self.frame.scope(cx, &output);
        let next = node.routing.next(&scope, &output, resumed);
        if let Some(said) = said
            && (!resumed || next == Next::Stay)
        {
            self.say(cx.program, said);
        }
        if resumed {
            payload::consume_action(&mut self.frame.entry);
        }
        match next {
            Next::To(next) => {
                self.frame.node = next;
                Ok(Settled::Step(Progress::On))
            }
            Next::End => Ok(Settled::Ended(
                node.kind.ends_with_reply().then_some(output),
            )),
            Next::Stay => {
                self.forbid_in_call(cx.program)?;
                if node.kind.prompts() {
                    self.say_last(cx.program, Some(&output));
                }
                let reason = Some(format!("awaiting user submit at node `{}`", node.id));
                let next = self.frame.node;
                Ok(Settled::Step(Progress::Waits(Parking {
                    next,
                    before,
                    reason,
                })))
            }
        }
    }

    fn wait(
        &mut self,
        cx: &Context<'_>,
        node: &Node,
        before: Arc<Value>,
        reason: Option<String>,
    ) -> Result<Settled, FlowError> {
        self.forbid_in_call(cx.program)?;
        let scope = self.frame.scope(cx, &self.frame.prev);
        match node.routing.next(&scope, &self.frame.prev, false) {
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
        let called = Frame::start(program, flow, input);
        self.callers
            .push(std::mem::replace(&mut self.frame, called));
        Ok(Progress::On)
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
