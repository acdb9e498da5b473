//! What every [`TurnStore`] must do: one list of cases, run on memory by `turn_store.rs` and on Redis by `it`.
//!
//! `talk` has the words that the cases are written in.

mod atomicity;
mod claims;
mod isolation;
mod quotas;
mod state;
pub mod talk;
mod waits;

use std::time::Duration;

use greentic_worker::ports::TurnStore;

pub use atomicity::*;
pub use claims::*;
pub use isolation::*;
pub use quotas::*;
pub use state::*;
pub use waits::*;

/// How long the backends under test remember an applied activity.
pub const DEDUPE_WINDOW: Duration = Duration::from_secs(3600);

/// A store of its own for one case, and its time.
pub trait Backend: Sync {
    /// The store.
    fn store(&self) -> &impl TurnStore;

    /// An environment that no other case uses.
    fn env(&self) -> &str;

    /// Lets time pass.
    fn pass(&self, time: Duration) -> impl Future<Output = ()>;
}

/// One test for each case of the contract, on the backend that the expression makes.
#[macro_export]
macro_rules! turn_store_contract {
    ($backend:expr) => {
        $crate::turn_store_contract! {
            @each $backend;
            // waits
            a_parked_flow_is_found_again_as_it_was
            each_conversation_and_thread_resumes_its_own
            the_echo_leads_before_the_latest
            the_latest_wait_answers_where_nothing_is_echoed
            a_cleared_wait_gives_way_to_the_one_it_had_pushed_aside
            a_restored_wait_is_the_first_that_is_still_there
            a_restored_wait_expires_when_it_would_have
            clearing_an_older_wait_leaves_the_latest
            a_turn_that_parks_again_is_the_latest
            a_new_wait_may_keep_the_correlation_of_the_one_it_follows
            clearing_a_wait_leaves_a_correlation_that_names_another
            a_wait_expires
            a_wait_may_be_for_no_time_and_for_ever
            a_wait_that_expires_leaves_the_others
            a_turn_may_pass_over_what_waits
            without_a_reply_scope_nothing_waits
            a_wait_without_a_reply_scope_is_refused
            // atomicity
            a_wait_is_taken_once
            of_many_racing_turns_one_takes_a_wait
            two_turns_that_start_a_flow_are_one_too_many
            a_turn_that_saw_another_head_conflicts
            an_older_wait_is_taken_once_though_the_head_stays
            a_wait_that_expired_meanwhile_cannot_be_taken
            a_conflict_leaves_nothing_behind
            an_activity_is_applied_once
            a_commit_whose_answer_was_lost_finds_itself
            an_applied_activity_hands_back_its_outbox
            a_published_outbox_is_empty
            a_record_tells_whose_content_it_is
            an_outbox_that_is_published_in_part_holds_the_rest
            an_applied_activity_is_forgotten_after_the_window
            publishing_does_not_prolong_the_memory_of_an_activity
            publishing_does_not_apply_what_was_not
            // claims
            a_lease_keeps_others_out
            a_lease_covers_its_conversation_only
            the_holder_may_ask_again_and_is_counted_once
            attempts_are_counted_for_each_activity
            an_attempt_that_is_withdrawn_does_not_count
            attempts_are_counted_across_expired_leases
            attempts_are_forgotten_after_the_window
            attempts_of_a_dead_letter_are_forgotten
            an_optimistic_turn_takes_and_counts_nothing
            a_commit_frees_its_lease
            a_release_frees_only_its_own_lease
            an_expired_lease_counts_while_nobody_else_has_it
            a_lease_is_prolonged_by_its_holder_only
            a_lease_on_a_user_keeps_other_conversations_from_its_state
            a_lease_on_a_user_is_prolonged_and_given_up_as_others_are
            attempts_that_failed_are_told_from_those_that_ended_in_silence
            a_lease_that_went_to_another_is_lost
            an_optimistic_commit_gives_way_to_a_lease
            without_a_reply_scope_the_lease_covers_the_activity
            an_applied_activity_needs_no_lease
            // state
            state_is_read_as_it_was_written
            state_that_changed_meanwhile_conflicts
            state_that_appeared_meanwhile_conflicts
            state_that_was_not_read_does_not_conflict
            state_does_not_expire
            deleted_state_is_gone
            a_value_that_is_too_large_is_not_read
            // quotas
            the_state_of_a_user_is_bounded
            the_state_of_a_tenant_is_bounded
            state_that_shrinks_is_never_refused
            the_bytes_of_state_are_told
            the_waits_of_a_user_are_bounded
            waits_that_expired_do_not_count
            a_refused_turn_changes_nothing
            a_conflict_comes_before_a_quota
            // isolation
            waits_are_each_owners_own
            state_is_each_owners_own
            state_keys_reach_nowhere_else
            activities_are_each_tenants_own
            leases_are_each_owners_own
        }
    };
    (@each $backend:expr; $($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::contract::$case(&$backend.await).await;
            }
        )*
    };
}
