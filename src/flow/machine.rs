//! The machine: runs one node after the other, and carries out what they came to.

use std::sync::Arc;

use serde_json::Value;

use super::budget::{Budget, Excess};
use super::error::{FlowError, Place};
use super::frame::Frame;
use super::graph::{FlowIx, Node, NodeIx, Program};
use super::memory::Memory;
use super::nodes::{Call, Outcome, Then, state_answer};
use super::nodes_run::NodesRun;
use super::output::Output;
use super::visit::Visit;
use super::{Ask, Context};
use crate::model::{Invocation, MAX_DEPTH};

/// What a run does next. It is done at one go, or undone and done again.
#[derive(Debug)]
pub(super) enum Work {
    /// Runs the next node.
    Run,
    /// Runs the next node, whose first try did not fit into the slice.
    RunAgain,
    /// Reads the answer of the component that the node called.
    Read(Value),
    /// Ends the node with this output.
    Finish(Output, Then),
}

/// What comes after a piece of work.
pub(super) enum Progress {
    /// The next node.
    On,
    /// An answer, which the node needs to be done.
    Asks(Ask, Pending),
    /// The same work, with the next slice.
    Pauses(Box<Work>),
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
pub(super) enum Settled {
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
    pub(super) budget: Budget,
    /// How many components the turn has called.
    called: u32,
}

impl Machine {
    /// A machine that begins with this frame.
    pub(super) fn new(cx: &Context<'_>, frame: Frame) -> Box<Self> {
        let mut budget = Budget::new(cx.program.limits, cx.monitor);
        budget.open_slice(cx.slice, cx.monitor);
        Box::new(Self {
            frame,
            callers: Vec::new(),
            memory: Memory::new(cx.program.limits.state),
            logs: Vec::new(),
            nodes_run: NodesRun::default(),
            budget,
            called: 0,
        })
    }

    /// The bytes that its templates have produced.
    pub(super) fn rendered_bytes(&self, program: &Program) -> u64 {
        let limit = program.limits.rendered_bytes;
        limit.saturating_sub(self.budget.bytes_left()) as u64
    }

    /// Does a piece of work. With `whole` it ends, whatever is left of the slice.
    pub(super) fn advance(
        &mut self,
        cx: &Context<'_>,
        work: Work,
        whole: bool,
    ) -> Result<Progress, FlowError> {
        let slice_end = whole.then(|| self.budget.lift_slice());
        let progress = self.work(cx, work);
        if let Some(slice_end) = slice_end {
            self.budget.restore_slice(slice_end);
        }
        progress
    }

    fn work(&mut self, cx: &Context<'_>, work: Work) -> Result<Progress, FlowError> {
        match work {
            Work::Run => {
                let at = (self.frame.flow, self.frame.node);
                self.nodes_run.count(cx.program, at)?;
                cx.monitor.node_begins(cx.program, at);
                self.run_node(cx)
            }
            Work::RunAgain => self.run_node(cx),
            Work::Read(answer) => self.read_answer(cx, answer),
            Work::Finish(output, then) => self.settle(cx, Outcome::Done { output, then }),
        }
    }

    fn run_node(&mut self, cx: &Context<'_>) -> Result<Progress, FlowError> {
        let mark = self.budget.mark();
        let node = self.node(cx.program);
        let opened = self.budget.open_node((self.frame.flow, self.frame.node));
        let outcome = match opened {
            Ok(()) => node.kind.run(&mut self.visit(cx)),
            Err(excess) => Err(self.stopped(cx.program, excess)),
        };
        match outcome {
            Ok(outcome) => self.settle(cx, outcome),
            Err(_) if self.budget.pauses() => {
                self.budget.go_back(mark);
                Ok(Progress::Pauses(Box::new(Work::RunAgain)))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the state that the node asked for.
    pub(super) fn take_state(
        &mut self,
        program: &Program,
        (flow, key): (FlowIx, String),
        stored: Option<Value>,
    ) -> Result<Work, FlowError> {
        if let Some(value) = &stored {
            let walked = self.budget.unsliced(|budget| budget.walk(value));
            walked.map_err(|excess| self.stopped(program, excess))?;
        }
        self.memory.learn(flow, &key, stored.clone().map(Arc::new));
        let (output, then) = state_answer(&key, stored);
        Ok(Work::Finish(output, then))
    }

    /// Takes what the component that the node called came to.
    pub(super) fn take_answer(
        &mut self,
        cx: &Context<'_>,
        output: &Value,
        state: Vec<(String, Option<Value>)>,
    ) -> Result<(), FlowError> {
        let at = (self.frame.flow, self.frame.node);
        let values = state.iter().filter_map(|(_, value)| value.as_ref());
        let checked = self.budget.unsliced(|budget| {
            budget.open_node(at)?;
            let mut values = values.chain([output]);
            values.try_for_each(|value| budget.walk_bounded(value))
        });
        match checked {
            Ok(()) => {}
            Err(Excess::Depth) => {
                let reason = format!("it nests deeper than {MAX_DEPTH} levels");
                return Err(self.visit(cx).misanswered(reason));
            }
            Err(excess) => return Err(self.stopped(cx.program, excess)),
        }
        for (key, value) in state {
            let written = self.memory.write(self.frame.flow, &key, value);
            written.map_err(|excess| FlowError::StateLimit {
                place: self.place(cx.program),
                excess,
            })?;
        }
        Ok(())
    }

    fn read_answer(&mut self, cx: &Context<'_>, mut answer: Value) -> Result<Progress, FlowError> {
        let mark = self.budget.mark();
        let node = self.node(cx.program);
        match node.kind.answered(&mut self.visit(cx), &mut answer) {
            Ok(outcome) => self.settle(cx, outcome),
            Err(_) if self.budget.pauses() => {
                self.budget.go_back(mark);
                Ok(Progress::Pauses(Box::new(Work::Read(answer))))
            }
            Err(error) => Err(error),
        }
    }

    /// What the node that runs sees, and what it may change.
    pub(super) fn visit<'a>(&'a mut self, cx: &Context<'a>) -> Visit<'a> {
        Visit {
            program: cx.program,
            at: (self.frame.flow, self.frame.node),
            scope: self.frame.scope(cx, &self.frame.prev),
            budget: &mut self.budget,
            memory: &self.memory,
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
                self.say_last(cx.program, last.as_deref())?;
                return Ok(Progress::Over);
            };
            let called = std::mem::replace(&mut self.frame, caller);
            self.budget.reopen_node();
            settled = self.finish_node(
                cx,
                called.into_value(last.as_deref()).into(),
                Then::Continue,
            )?;
        }
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
        let copied = self
            .budget
            .unsliced(|budget| budget.walk_fields(&program.flows[flow].vars));
        copied.map_err(|excess| self.stopped(program, excess))?;
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

    pub(super) fn forbid_in_call(&self, program: &Program) -> Result<(), FlowError> {
        if self.callers.is_empty() {
            return Ok(());
        }
        Err(FlowError::CallCannotWait {
            place: self.place(program),
        })
    }

    pub(super) fn node<'p>(&self, program: &'p Program) -> &'p Node {
        program.node(self.frame.flow, self.frame.node)
    }

    pub(super) fn stopped(&self, program: &Program, excess: Excess) -> FlowError {
        FlowError::of_excess(self.place(program), "", excess, program.limits)
    }

    pub(super) fn place(&self, program: &Program) -> Place {
        program.place(self.frame.flow, self.frame.node)
    }
}
