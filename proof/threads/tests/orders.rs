//! Each in many orders.

use tenure_threads::{answers, commits, in_many_orders, lease, listeners, session, wakes};

#[test]
fn what_a_file_store_shows_is_on_disk() {
    in_many_orders(500, commits::what_is_seen_is_on_disk);
}

#[test]
fn what_a_file_store_has_queued_is_decided() {
    in_many_orders(500, commits::what_is_queued_is_decided);
}

#[test]
fn whoever_listens_to_a_store_hears_of_the_last_write() {
    in_many_orders(3_000, listeners::the_last_write_is_heard);
}

#[test]
fn whoever_listens_to_a_store_hears_of_its_end() {
    in_many_orders(3_000, listeners::the_end_is_heard);
}

#[test]
fn a_request_is_answered_once() {
    in_many_orders(3_000, answers::a_request_is_answered_once);
}

#[test]
fn a_cancelled_lease_is_not_spoken_of() {
    in_many_orders(3_000, answers::a_cancelled_lease_is_not_spoken_of);
}

#[test]
fn a_lease_ends_once() {
    in_many_orders(3_000, lease::a_lease_ends_once);
}

#[test]
fn whoever_asks_again_for_a_release_is_told() {
    in_many_orders(3_000, lease::whoever_asks_again_is_told);
}

#[test]
fn nothing_is_left_behind_by_a_connection() {
    in_many_orders(3_000, lease::nothing_is_left_behind);
}

#[test]
fn a_lease_that_ran_out_stays_so() {
    in_many_orders(3_000, session::a_lease_that_ran_out_stays_so);
}

#[test]
fn a_lost_lease_stays_lost() {
    in_many_orders(3_000, session::a_lost_lease_stays_lost);
}

#[test]
fn a_former_bucket_says_nothing_of_the_next() {
    in_many_orders(3_000, session::a_former_bucket_says_nothing_of_the_next);
}

#[test]
fn no_wake_of_a_connection_is_lost() {
    in_many_orders(3_000, wakes::no_wake_is_lost);
}

#[test]
fn no_task_of_a_connection_is_forgotten() {
    in_many_orders(3_000, wakes::no_task_is_forgotten);
}
