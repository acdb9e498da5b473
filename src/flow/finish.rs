//! The end of a node: what its output changes in the run, and where the run goes from it.
//!
//! Work that a slice may cut short comes first and can be undone; what cannot be undone comes after it.

use std::sync::Arc;

use serde_json::Value;

use super::error::FlowError;
use super::frame::closing;
use super::graph::{Node, Program};
use super::machine::{Machine, Parking, Progress, Settled, Work};
use super::memory::OlderState;
use super::nodes::{Jump, Then};
use super::output::Output;
use super::payload;
use super::routing::Next;
use super::{Context, Reply};

/// The changes that a node's end has made so far, to be undone if the rest of it does not fit into the slice.
#[derive(Debug)]
struct Changes {
    /// The turn's message came to this very node.
    resumed: bool,
    /// The turn's message named the node, and answers nothing.
    shows_first: bool,
    /// What was `prev` before the node.
    before: Arc<Value>,
    /// The output that the node had before.
    displaced: Option<Output>,
    /// The variables that were set, in order, with what they were before.
    vars: Vec<(String, Option<Value>)>,
    /// What was taken out of [`Then`] already.
    noted: Option<Noted>,
    /// Nothing comes after them that a slice could cut short, so nothing has to be remembered.
    are_last: bool,
}

#[derive(Debug)]
enum Noted {
    /// The variable that was assigned, and what it was before.
    Var(String, Option<Value>),
    Store(String, OlderState),
    Log,
}

/// What the routes of a card that nobody has seen yet find in the message.
static NO_ANSWER: Value = Value::Null;

impl Machine {
    /// Ends a node.
    pub(super) fn finish_node(
        &mut self,
        cx: &Context<'_>,
        mut output: Output,
        mut then: Then,
    ) -> Result<Settled, FlowError> {
        let mark = self.budget.mark();
        let node = self.node(cx.program);
        let mut changes = Changes {
            resumed: self.frame.resumed,
            shows_first: self.frame.shows_first,
            before: Arc::clone(&self.frame.prev),
            displaced: None,
            vars: Vec::new(),
            noted: None,
            are_last: node.vars_out.is_empty() && node.routing.is_fixed(),
        };
        let found = self.answer_and_bind(cx, &mut output, &mut then, &mut changes);
        match found {
            Ok(next) => self.conclude(cx.program, (&output, then), changes, next),
            Err(_) if self.budget.pauses() => {
                self.undo(node, changes, &mut then);
                self.budget.go_back(mark);
                let work = Box::new(Work::Finish(output, then));
                Ok(Settled::Step(Progress::Pauses(work)))
            }
            Err(error) => Err(error),
        }
    }

    /// Carries out what the node's own bindings and conditions may look at, and finds the way that the run takes, if the
    /// routing says it.
    fn answer_and_bind(
        &mut self,
        cx: &Context<'_>,
        output: &mut Output,
        then: &mut Then,
        changes: &mut Changes,
    ) -> Result<Option<Next>, FlowError> {
        let node = self.node(cx.program);
        if changes.resumed {
            self.attach_answers(cx.program, node, output)?;
        }
        self.frame.resumed = false;
        self.frame.shows_first = false;
        self.frame.prev = Arc::clone(&output.payload);
        changes.displaced = self
            .frame
            .outputs
            .insert(Arc::clone(&node.name), output.clone());
        self.note(cx.program, then, changes)?;
        for (name, binding) in &node.vars_out {
            let value = self.visit(cx).render(binding)?;
            let old = self.frame.vars.insert(name.clone(), value);
            changes.vars.push((name.clone(), old));
        }
        let resumed = match then {
            Then::Jump(_) | Then::Respond(_) => return Ok(None),
            Then::Wait { .. } => false,
            // Nobody has seen the card yet, so no route of it is open.
            _ if changes.shows_first && !output.is_failed() => return Ok(Some(Next::Stay)),
            Then::Say(_) | Then::Continue | Then::Log(_) | Then::Assign(..) | Then::Store(..) => {
                changes.resumed
            }
        };
        let mut scope = self.frame.scope(cx, &output.payload);
        if changes.shows_first && !matches!(then, Then::Wait { .. }) {
            scope.entry = &NO_ANSWER;
        }
        let next = node
            .routing
            .next(&scope, output, resumed, &mut self.budget)
            .map_err(|halt| {
                let place = cx.program.place(self.frame.flow, self.frame.node);
                FlowError::of_excess(place, &halt.condition, halt.excess, cx.program.limits)
            })?;
        Ok(Some(next))
    }

    /// Puts what was submitted into the output of the node that waited for it.
    fn attach_answers(
        &mut self,
        program: &Program,
        node: &Node,
        output: &mut Output,
    ) -> Result<(), FlowError> {
        let walked = self.budget.walk(&self.frame.entry);
        walked.map_err(|excess| self.stopped(program, excess))?;
        self.frame.attach_answers(node, output);
        Ok(())
    }

    fn note(
        &mut self,
        program: &Program,
        then: &mut Then,
        changes: &mut Changes,
    ) -> Result<(), FlowError> {
        match std::mem::replace(then, Then::Continue) {
            Then::Assign(name, value) if changes.are_last => {
                self.frame.vars.insert(name, value);
            }
            Then::Assign(name, value) => {
                let old = match self.frame.vars.get_mut(&name) {
                    Some(variable) => Some(std::mem::replace(variable, value)),
                    None => self.frame.vars.insert(name.clone(), value),
                };
                changes.noted = Some(Noted::Var(name, old));
            }
            Then::Store(key, value) => {
                let written = self.memory.write(self.frame.flow, &key, Some(value));
                let old = written.map_err(|excess| FlowError::StateLimit {
                    place: self.place(program),
                    excess,
                })?;
                changes.noted = Some(Noted::Store(key, old));
            }
            Then::Log(line) => {
                self.logs.push(line);
                changes.noted = Some(Noted::Log);
            }
            other @ (Then::Continue
            | Then::Say(_)
            | Then::Wait { .. }
            | Then::Jump(_)
            | Then::Respond(_)) => *then = other,
        }
        Ok(())
    }

    /// Gives a variable its older value back. Returns the newer one.
    fn restore(&mut self, name: String, old: Option<Value>) -> Option<Value> {
        match old {
            Some(old) => self.frame.vars.insert(name, old),
            None => self.frame.vars.remove(&name),
        }
    }

    /// Takes back what the end of a node has changed. The answers in its output are put in again when it ends anew.
    fn undo(&mut self, node: &Node, changes: Changes, then: &mut Then) {
        for (name, old) in changes.vars.into_iter().rev() {
            self.restore(name, old);
        }
        match changes.noted {
            Some(Noted::Var(name, old)) => {
                let assigned = self.restore(name.clone(), old);
                *then = Then::Assign(name, assigned.unwrap_or_default());
            }
            Some(Noted::Store(key, old)) => {
                let value = self.memory.unwrite(self.frame.flow, &key, old);
                *then = Then::Store(key, value.unwrap_or_default());
            }
            Some(Noted::Log) => *then = Then::Log(self.logs.pop().unwrap_or_default()),
            None => {}
        }
        match changes.displaced {
            Some(output) => self.frame.outputs.insert(Arc::clone(&node.name), output),
            None => self.frame.outputs.remove(&node.name),
        };
        self.frame.prev = changes.before;
        self.frame.resumed = changes.resumed;
        self.frame.shows_first = changes.shows_first;
    }

    fn conclude(
        &mut self,
        program: &Program,
        (output, then): (&Output, Then),
        changes: Changes,
        next: Option<Next>,
    ) -> Result<Settled, FlowError> {
        match (then, next) {
            (Then::Jump(jump), _) => self.jump(program, &jump),
            (Then::Respond(said), _) => {
                self.say(program, said)?;
                Ok(Settled::Ended(None))
            }
            (Then::Wait { reason }, next) => self.wait(program, next, changes.before, reason),
            (Then::Say(said), Some(next)) => {
                // What the node says is kept back when a message came to it: if that opened a route, the user has
                // answered and need not be asked again; if not, it is said once more.
                if !changes.resumed || next == Next::Stay {
                    self.say(program, said)?;
                }
                self.go_on(program, output, changes, next)
            }
            (_, Some(next)) => self.go_on(program, output, changes, next),
            (_, None) => Ok(Settled::Ended(None)),
        }
    }

    fn go_on(
        &mut self,
        program: &Program,
        output: &Output,
        changes: Changes,
        next: Next,
    ) -> Result<Settled, FlowError> {
        let payload = &output.payload;
        let node = self.node(program);
        // One press counts for one card, whether the card was waited at or passed on the way.
        if changes.resumed || (node.shows_card && node.routing.may_stay()) {
            payload::consume_action(&mut self.frame.entry);
        }
        match next {
            Next::To(next) => {
                self.frame.node = next;
                Ok(Settled::Step(Progress::On))
            }
            Next::End => {
                let speaks = self.node(program).kind.ends_with_reply();
                Ok(Settled::Ended(speaks.then(|| Arc::clone(payload))))
            }
            Next::Stay => self.stay(program, payload, changes.before),
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
            self.say_last(program, Some(payload))?;
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
        program: &Program,
        next: Option<Next>,
        before: Arc<Value>,
        reason: Option<String>,
    ) -> Result<Settled, FlowError> {
        self.forbid_in_call(program)?;
        match next {
            Some(Next::To(next)) => Ok(Settled::Step(Progress::Waits(Parking {
                next,
                before,
                reason,
            }))),
            Some(Next::End | Next::Stay) | None => Err(FlowError::RouteMissing {
                place: self.place(program),
            }),
        }
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

    fn say(&mut self, program: &Program, payload: Value) -> Result<(), FlowError> {
        let limit = program.limits.replies;
        if self.frame.said.len() >= limit as usize {
            let place = self.place(program);
            return Err(FlowError::ReplyLimit { place, limit });
        }
        let flow = program.flows[self.frame.flow].id.clone();
        self.frame.said.push(Reply { flow, payload });
        Ok(())
    }

    pub(super) fn say_last(
        &mut self,
        program: &Program,
        last: Option<&Value>,
    ) -> Result<(), FlowError> {
        let mut rest = closing(&self.frame.said, last).into_iter();
        rest.try_for_each(|payload| self.say(program, payload))
    }
}
