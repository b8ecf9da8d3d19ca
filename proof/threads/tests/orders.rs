//! Each in many orders.

use tenure_threads::{commits, in_many_orders, listeners};

#[test]
fn what_a_file_store_shows_is_on_disk() {
    in_many_orders(commits::what_is_seen_is_on_disk);
}

#[test]
fn what_a_file_store_has_queued_is_decided() {
    in_many_orders(commits::what_is_queued_is_decided);
}

#[test]
fn whoever_listens_to_a_store_hears_of_the_last_write() {
    in_many_orders(listeners::the_last_write_is_heard);
}

#[test]
fn whoever_listens_to_a_store_hears_of_its_end() {
    in_many_orders(listeners::the_end_is_heard);
}
