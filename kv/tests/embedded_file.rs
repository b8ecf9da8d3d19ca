//! The store in a file: what it refuses to open, and what survives.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embedded_support;

use std::path::Path;

use embedded_support::key;
use futures::StreamExt;
use tenure_kv::{Entry, Event, File, FileOptions, KeyRange, Op, Since, Store, StoreExt};

async fn open(path: &Path) -> tenure_kv::Result<File> {
    File::open(path, FileOptions::default()).await
}

/// Everything the store has, tombstones included.
async fn content(store: &File) -> Vec<Entry> {
    let mut events = store.watch(KeyRange::All, Since::Current).await.unwrap();
    let mut all = Vec::new();
    while let Some(Ok(Event::Entry(entry))) = events.next().await {
        all.push(entry);
    }
    all
}

#[tokio::test]
async fn fuzz() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).await.unwrap();
    for i in 0..60 {
        store.put(&key(format!("k.{i}")), vec![i as u8; 300]).await.unwrap();
        if i % 3 == 0 {
            store.commit(Op::delete(key(format!("k.{i}"))).into()).await.unwrap();
        }
    }
    let before = content(&store).await;
    drop(store);
    let image = std::fs::read(&path).unwrap();
    println!("len {}", image.len());
    let used: Vec<usize> = image
        .chunks(512)
        .enumerate()
        .filter(|(_, c)| c.iter().any(|b| *b != 0))
        .flat_map(|(i, c)| i * 512..i * 512 + c.len())
        .collect();
    println!("used {}", used.len());
    let copy = directory.path().join("copy");
    let (mut refused, mut same, mut other, mut panicked) = (0, 0, 0, 0);
    let mut rng: u64 = 12345;
    let mut bits: Vec<usize> = (0..400 * 8).collect();
    for _ in 0..20000 {
        rng = rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bits.push(used[(rng >> 33) as usize % used.len()] * 8 + (rng >> 20) as usize % 8);
    }
    for bit in bits {
        let mut bad = image.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&copy, &bad).unwrap();
        let c2 = copy.clone();
        let opened = tokio::spawn(async move { open(&c2).await }).await;
        match opened {
            Err(e) => {
                println!("PANIC bit {bit} byte {}: {e}", bit / 8);
                panicked += 1
            }
            Ok(Err(error)) => {
                if refused < 5 || error.is_unavailable() {
                    println!("{bit}: {error}");
                }
                assert!(std::fs::read(&copy).unwrap() == bad);
                refused += 1;
            }
            Ok(Ok(store)) => {
                if content(&store).await == before {
                    same += 1
                } else {
                    println!("OTHER {bit}");
                    other += 1
                }
            }
        }
    }
    println!("refused {refused} same {same} other {other} panicked {panicked}");
}
