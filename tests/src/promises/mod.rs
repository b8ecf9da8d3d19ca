//! The promises about locks, groups and sessions: one function for each, run over every store.
//!
//! Each function makes a [`Bed`], a bucket of its own with several independent handles, as processes
//! have them. A function returns when the promise is kept and panics with the reason when it is not.
//!
//! Call [`promises!`](macro@crate::promises) in a test file to get one test per promise.
//!
//! Where a promise is a bound on time, it is asserted as promised. If the mechanism and not the machine
//! is what it is about, the best of a few tries counts: tests share two cores with each other and with
//! servers, and a task that is not scheduled for 30 ms says nothing about the lock.

mod bed;
mod history;
mod line;
mod support;

mod answers;
mod basics;
mod breaking;
mod cancelling;
mod clocks;
mod crashing;
mod crowding;
mod dropping;
mod electing;
mod ending;
mod epochs;
mod exclusion;
mod fencing;
mod garbage;
mod groups;
mod healing;
mod janitors;
mod looking;
mod losing;
mod observing;
mod offices;
mod renewing;
mod servers;
mod sharing;
mod waiting;

pub use bed::Bed;
pub use servers::{a_cluster_loses_its_leaders, a_server_is_killed_and_restarted};

/// The list of promises, handed to another macro: the one place where they are named.
#[doc(hidden)]
#[macro_export]
macro_rules! __promises {
    ([$($then:tt)*] $($arguments:tt)*) => {
        $($then)*! { [$($arguments)*]
            basics: a_lock_is_taken_and_given_back;
            basics: a_token_stays_the_same_while_held;
            basics: a_queue_shows_who_holds_and_who_waits;
            basics: names_are_checked_and_kept_apart;
            basics: a_try_names_the_holder_and_leaves_nothing;
            basics: tasks_of_one_session_exclude_each_other;
            basics: everything_travels_between_tasks;
            exclusion: of_many_at_most_one_holds;
            exclusion: of_many_who_try_one_wins;
            exclusion: a_storm_of_faults_breaks_nothing;
            waiting: waiters_are_served_in_order;
            waiting: a_long_queue_is_served_in_order;
            waiting: waiters_that_leave_block_nobody;
            waiting: waiting_costs_nothing;
            waiting: a_release_wakes_one_waiter;
            crowding: a_crowd_is_served_in_order_for_one_request_each;
            crowding: a_crowd_outlives_the_dead_before_it;
            crowding: a_crowd_survives_interruptions;
            crowding: a_crowd_that_leaves_blocks_nobody;
            cancelling: acquiring_can_be_dropped_at_every_wait;
            cancelling: waiting_can_be_dropped_at_every_wait;
            cancelling: releasing_and_writing_can_be_dropped_at_every_wait;
            dropping: sessions_can_be_dropped_at_every_wait;
            dropping: breaking_can_be_dropped_at_every_wait;
            dropping: members_can_be_dropped_at_every_wait;
            dropping: leading_can_be_dropped_at_every_wait;
            dropping: partitions_can_be_dropped_at_every_wait;
            dropping: commits_can_be_dropped_at_every_wait;
            dropping: registers_can_be_dropped_at_every_wait;
            dropping: opening_can_be_dropped_at_every_wait;
            looking: looking_can_be_dropped_at_every_wait;
            looking: following_can_be_dropped_at_every_wait;
            observing: onlookers_are_told_who_holds_and_who_waits;
            observing: looking_on_at_a_lock_costs_little;
            observing: onlookers_are_told_of_outages_and_resets;
            fencing: a_fence_needs_no_clock;
            fencing: a_conflict_is_not_a_loss;
            fencing: a_batch_is_fenced_as_a_whole;
            fencing: a_guard_spares_its_own_keys;
            crashing: a_crashed_holder_delays_the_next_by_one_lease;
            crashing: who_comes_after_a_crash_waits_for_the_rest_of_the_lease;
            crashing: a_paused_holder_knows_at_its_first_look;
            crashing: a_short_pause_loses_nothing;
            crashing: a_dead_process_delays_the_next_by_one_lease;
            losing: policies_differ_when_nobody_waits;
            losing: policies_agree_when_somebody_waits;
            losing: a_failed_renewal_is_no_loss;
            losing: work_is_dropped_when_the_lock_is_lost;
            answers: a_ticket_without_answer_is_found_again;
            answers: a_ticket_that_lands_after_the_release_is_turned_away;
            answers: a_ticket_that_lands_after_its_waiter_left_is_turned_away;
            answers: a_refused_ticket_is_told;
            answers: a_release_is_ok_when_it_is_done;
            answers: what_stops_a_ticket_too_late_spoils_no_release;
            answers: a_release_without_answer_is_not_ok;
            answers: a_renewal_counts_from_its_sending;
            answers: a_late_renewal_harms_nobody;
            answers: a_session_is_opened_once_and_never_revived;
            answers: deposing_without_answer_is_safe;
            answers: deposing_that_lands_late_is_harmless;
            clocks: a_slow_clock_does_not_outlast_its_lease;
            clocks: a_fast_clock_deposes_nobody_who_renews;
            clocks: a_suspend_is_noticed_at_the_first_look;
            clocks: time_left_is_counted_by_the_own_clock;
            renewing: renewals_do_not_grow_with_locks;
            renewing: without_a_fault_nothing_is_lost;
            breaking: a_hold_is_broken_and_hears_of_it;
            breaking: who_was_cut_off_hears_that_its_hold_was_broken;
            breaking: a_hold_broken_while_it_is_granted_is_none;
            ending: closing_frees_everything_at_once;
            ending: closing_leaves_no_task;
            ending: a_dropped_guard_frees_its_lock;
            ending: a_dropped_session_frees_its_locks;
            epochs: a_bucket_made_anew_loses_every_lease;
            epochs: a_bucket_that_went_back_is_noticed_at_the_next_write;
            epochs: a_foreign_bucket_is_refused;
            healing: an_outage_for_all_is_held_against_nobody;
            healing: waiting_outlives_its_notices;
            healing: reads_that_lag_grant_nothing;
            garbage: foreign_keys_are_passed_over;
            garbage: unreadable_tickets_are_tickets;
            garbage: unreadable_sessions_are_deposed;
            groups: members_come_change_and_go;
            groups: an_id_has_one_living_owner;
            groups: a_join_without_answer_is_found_again;
            groups: a_join_that_lands_late_leaves_nothing;
            groups: joining_can_be_dropped_at_every_wait;
            groups: an_update_without_answer_is_settled;
            groups: a_leave_is_ok_when_it_is_done;
            groups: watching_never_skips_the_last_state;
            groups: heartbeats_cost_watchers_nothing;
            groups: unreadable_members_are_passed_over;
            electing: a_term_stays_the_same_and_terms_grow;
            electing: resigning_hands_over_at_once;
            electing: of_many_at_most_one_leads;
            electing: a_crashed_leader_is_replaced_in_time;
            electing: a_slow_clock_does_not_outlast_its_office;
            electing: a_former_leader_writes_nothing;
            electing: an_outage_alone_deposes_nobody;
            electing: onlookers_are_told_every_last_state;
            electing: looking_on_costs_little;
            electing: a_higher_priority_asks_in_due_time;
            electing: a_transfer_never_elects_who_has_gone;
            electing: the_unhealthy_do_not_lead;
            offices: a_campaign_without_answer_is_settled;
            offices: a_candidature_without_answer_is_settled;
            offices: an_office_without_answers_tells_what_is_so;
            offices: campaigning_can_be_dropped_at_every_wait;
            offices: an_office_can_be_dropped_at_every_wait;
            offices: a_resignation_without_answer_is_not_ok;
            janitors: a_dead_member_goes_in_time;
            janitors: a_janitor_killed_in_mid_sweep_is_succeeded;
            janitors: a_living_member_is_never_removed;
            janitors: a_janitor_that_stood_still_removes_nobody;
            janitors: an_outage_for_all_removes_nobody;
            janitors: records_without_a_session_go;
            janitors: sessions_of_members_end;
            sharing: a_partition_never_has_two_owners;
        }
    };
}

macro_rules! reexport {
    ([] $($module:ident: $name:ident;)*) => {
        $(pub use $module::$name;)*
    };
}

crate::__promises! { [reexport] }

/// One test per promise. The argument is an expression that gives a future of a [`Bed`](crate::promises::Bed).
///
/// The caller's crate needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! promises {
    ($bed:expr) => {
        $crate::__promises! { [$crate::__promise_tests] $bed }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __promise_tests {
    ([$bed:expr] $($module:ident: $name:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::promises::$name(&$bed.await).await;
            }
        )*
    };
}
