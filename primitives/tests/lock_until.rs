//! Giving up a wait: the place in the queue is gone before the caller hears of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{sync::Arc, time::Duration};

use tenure::{Error, Session};
use tenure_kv::{Memory, Store};

#[tokio::test]
async fn whoever_gave_up_stands_in_nobodys_way() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let (one, two, three) =
        tokio::join!(Session::open(store.clone()), Session::open(store.clone()), Session::open(store.clone()));
    let (one, two, three) =
        (one.unwrap().mutex("a").unwrap(), two.unwrap().mutex("a").unwrap(), three.unwrap().mutex("a").unwrap());
    for _ in 0..100 {
        let held = one.lock().await.unwrap();
        let gave_up = if held.token().get() % 2 == 0 {
            two.lock_until(tokio::time::sleep(Duration::from_millis(1))).await
        } else {
            two.lock_timeout(Duration::from_millis(1)).await
        };
        assert!(matches!(gave_up, Err(Error::NotAcquired { holder: Some(holder), .. }) if holder.token == held.token()));
        held.release().await.unwrap();
        three.try_lock().await.unwrap().release().await.unwrap();
    }
}

#[tokio::test]
async fn a_lock_that_is_free_is_taken_though_nobody_may_wait() {
    let session = Session::open(Arc::new(Memory::new())).await.unwrap();
    let mutex = session.mutex("a").unwrap();
    mutex.lock_until(std::future::pending()).await.unwrap().release().await.unwrap();
}
