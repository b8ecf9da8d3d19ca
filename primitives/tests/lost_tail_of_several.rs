//! Several servers that keep a bucket are all set back at once, and others write where they stood, before a session that
//! was there writes again. Their reads may lag, and their watches go on as if nothing had been.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod losing_server;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tenure::{Election, Guard, JoinOptions, Loss, Mutex, Session, View};
use tenure_kv::{Key, KeyRange, Revision, Store, StoreExt};
use tokio::task::JoinHandle;

use crate::losing_server::{LONG, Server, builder, other, soon};

/// Waits for what `range` holds to be so many.
async fn until(server: &Arc<Server>, range: &str, count: usize) {
    let range = KeyRange::new(range).unwrap();
    soon(&format!("{count} in {range}"), async {
        while server.list(&range).await.unwrap().len() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits for the view that all who wait in `session` share to show so many tickets.
async fn until_seen(session: &Session, count: usize) {
    let view = View::open(session.store(), KeyRange::new("lock.x.*").unwrap()).await.unwrap();
    let seen = view.wait_until(|now| (now.entries().count() == count).then_some(()));
    soon(&format!("{count} tickets in the view"), seen).await.unwrap();
}

fn waits(lock: &Mutex) -> JoinHandle<tenure::Result<Guard>> {
    let lock = lock.clone();
    tokio::spawn(async move { lock.lock().await })
}

fn campaigns(election: Election) -> JoinHandle<tenure::Result<tenure::Leadership>> {
    tokio::spawn(async move { election.campaign("").await })
}

#[tokio::test]
async fn what_a_crowd_has_seen_of_a_queue_hides_nobody_who_came_where_it_had_been() {
    let server = Server::of(3);
    let session = builder(&server).lease(LONG).open().await.unwrap();
    let lock = session.mutex("x").unwrap();
    let first = lock.lock().await.unwrap();
    let moment = server.moment();
    let before: Vec<_> = (0..12).map(|_| waits(&lock)).collect();
    until_seen(&session, 13).await;
    let last = server.go_back(moment).await;
    let second = other(&server).await;
    let theirs = waits(&second.mutex("x").unwrap());
    until(&server, "lock.x.*", 2).await;
    server.overtake(last).await;
    let after: Vec<_> = (0..12).map(|_| waits(&lock)).collect();
    until_seen(&session, 14).await;
    assert!(session.is_held(), "the session has noticed, so this test shows nothing");
    first.release().await.unwrap();
    let theirs = soon("the other's turn", theirs).await.unwrap().unwrap();
    assert!(theirs.token() < last, "it does not stand where others had");
    // Time for what must not happen.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(theirs.is_held() && !after.iter().any(JoinHandle::is_finished), "two hold it");
    for waiter in before {
        let lost = soon("the loss of a place", waiter).await.unwrap();
        assert!(lost.is_err(), "a ticket that is gone was granted");
    }
    theirs.release().await.unwrap();
    for waiter in after {
        soon("the next", waiter).await.unwrap().unwrap().release().await.unwrap();
    }
}

#[tokio::test]
async fn a_candidate_does_not_wait_for_a_leader_that_went_with_what_was_lost() {
    let server = Server::of(3);
    let (first, second) = (other(&server).await, other(&server).await);
    let candidate = builder(&server).lease(LONG).open().await.unwrap();
    let office = first.election("e").unwrap().campaign("one").await.unwrap();
    let moment = server.moment();
    office.resign().await.unwrap();
    let _office = second.election("e").unwrap().campaign("two").await.unwrap();
    let third = campaigns(candidate.election("e").unwrap());
    until(&server, "candidate.e.*", 1).await;
    server.lose_what_came_after(moment).await;
    // Now the first leads again, by what is there, and neither is left.
    first.close().await.unwrap();
    second.close().await.unwrap();
    let _office = soon("the office", third).await.unwrap().unwrap();
    assert!(candidate.is_held());
}

#[tokio::test]
async fn who_goes_on_from_a_look_at_what_was_lost_is_told_what_is_there() {
    let server = Server::of(3);
    let (first, second) = (other(&server).await, other(&server).await);
    let watcher = builder(&server).lease(LONG).open().await.unwrap();
    let office = first.election("e").unwrap().campaign("one").await.unwrap();
    let moment = server.moment();
    office.resign().await.unwrap();
    let lost = second.election("e").unwrap().campaign("two").await.unwrap();
    let mut looks = watcher.election("e").unwrap().looks();
    let last = soon("a look", looks.next()).await.unwrap().unwrap();
    assert_eq!(last.leader.as_ref().map(|leader| leader.term), Some(lost.term()));
    drop(looks);
    server.lose_what_came_after(moment).await;
    let mut looks = watcher.election("e").unwrap().looks_since(&last);
    let shows_what_was_lost = async |look: Option<tenure::Result<tenure::Look>>| {
        look.unwrap().unwrap().leader.is_some_and(|leader| leader.term == lost.term())
    };
    soon("what is there", async { while shows_what_was_lost(looks.next().await).await {} }).await;
}

#[tokio::test]
async fn a_member_that_joined_where_another_had_left_is_lost_with_its_record() {
    let server = Server::of(3);
    let session = builder(&server).open().await.unwrap();
    let group = session.group("g").unwrap();
    group.join("m", JoinOptions::default()).await.unwrap().leave().await.unwrap();
    let moment = server.moment();
    let member = group.join("m", JoinOptions::default()).await.unwrap();
    server.lose_what_came_after(moment).await;
    let left = server.entry(&Key::new("member.g.m").unwrap()).await.unwrap().unwrap();
    assert!(!left.is_live() && left.revision > Revision::ZERO, "nothing was there before");
    assert_eq!(soon("the member's end", member.lost()).await, Loss::StoreReset);
}
