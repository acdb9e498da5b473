//! The codes of dead letters, so that each of them can be counted from zero. `tests/docs.rs` compares them with the errors.

use super::dead_letter::{ID_REUSED, REPLY_UNDELIVERABLE};

/// All codes that a turn dead-letters with. `refused` and `tenant_not_bound` are not among them: those messages are handed back.
pub const DEAD_LETTER_CODES: &[&str] = &[
    // The message.
    "invalid_field",
    "missing_id",
    "payload_too_large",
    "tenant_mismatch",
    "unreadable_body",
    ID_REUSED,
    // The flow that it asks for, and the wait that it answers.
    "ambiguous_flow",
    "no_such_flow",
    "snapshot_unreadable",
    "store_unreadable",
    "wait_pack_gone",
    "wait_unreadable",
    // The run.
    "call_cannot_wait",
    "call_depth",
    "component_answer_invalid",
    "component_failed",
    "component_limit",
    "component_refused",
    "component_trap",
    "component_unusable",
    "contended",
    "no_such_node",
    "node_input_invalid",
    "node_limit",
    "panic",
    "redirect_limit",
    "rendered_limit",
    "reply_limit",
    "reply_scope_missing",
    "route_missing",
    "state_limit",
    "step_limit",
    "template_failed",
    "turn_timeout",
    "unexpected_event",
    // Its results.
    "commit_too_large",
    "reply_too_large",
    REPLY_UNDELIVERABLE,
    "reply_unwritable",
    "session_too_large",
    "tenant_state_quota",
    "user_state_quota",
    "wait_limit",
    // The attempts.
    "attempts_exhausted",
];
