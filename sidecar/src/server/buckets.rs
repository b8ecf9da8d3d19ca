//! The buckets that `kv.*` is about: each opened when it is first named, and kept for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tenure_kv::{Beside, Bucket, Store};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};

use super::errors;
use crate::protocol::{ErrorObject, Kind};

/// How many are kept. One that makes room stays with those who use it.
const MOST: usize = 64;
/// How long one is kept, used or not: its settings may have been changed, or another may have taken its name.
const KEEP: Duration = Duration::from_secs(60);
/// How long it may take to see whether a bucket that does not answer is still there.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Buckets {
    store: Arc<dyn Store>,
    /// The range for applications in the coordination bucket.
    own: Arc<dyn Bucket>,
    places: Mutex<HashMap<String, Place>>,
}

#[derive(Debug)]
struct Place {
    bucket: Arc<OnceCell<Arc<dyn Bucket>>>,
    since: Instant,
    used: Instant,
}

impl Buckets {
    pub(super) fn new(store: Arc<dyn Store>) -> Result<Self, tenure::Error> {
        let own = tenure::range_bucket(store.clone(), None)?;
        Ok(Self { store, own, places: Mutex::default() })
    }

    /// The range for applications in the coordination bucket.
    pub(super) fn own(&self) -> Arc<dyn Bucket> {
        self.own.clone()
    }

    /// The bucket that a request names, or that of those that name none.
    pub(super) async fn get(&self, name: Option<&str>) -> Result<Arc<dyn Bucket>, ErrorObject> {
        let Some(name) = name else { return Ok(self.own()) };
        tenure_kv::check_bucket(name).map_err(|error| errors::param("bucket", error.to_string()))?;
        // Whoever comes while it is being opened waits for that.
        let bucket = self.place(name);
        let opened = bucket.get_or_try_init(|| self.open(name)).await.cloned();
        if opened.is_err() {
            self.forget(name);
        }
        opened
    }

    /// The error of a request to the bucket `name`.
    pub(super) async fn failed(&self, name: Option<&str>, error: tenure_kv::Error) -> ErrorObject {
        let Some(name) = name.filter(|_| error.is_unavailable() || error.is_invalid()) else { return errors::of_store(error) };
        self.forget(name);
        // A bucket that was removed just does not answer.
        if error.is_unavailable()
            && let Ok(Err(gone)) = timeout(LOOK, self.get(Some(name))).await
            && gone.kind() == Some(Kind::NotFound)
        {
            return gone;
        }
        errors::of_store(error)
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn Bucket>, ErrorObject> {
        let found = self.store.bucket(name).await.map_err(|error| {
            let invalid = error.is_invalid();
            let said = errors::of_store(error);
            if invalid { said.with("param", "bucket") } else { said }
        })?;
        match found {
            Beside::There(bucket) => Ok(bucket),
            Beside::Missing(said) => Err(ErrorObject::new(Kind::NotFound, said).with("bucket", name)),
            Beside::Range => tenure::range_bucket(self.store.clone(), Some(name)).map_err(|error| errors::of(&error)),
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, name: &str) -> Arc<OnceCell<Arc<dyn Bucket>>> {
        let now = Instant::now();
        let mut places = self.places();
        places.retain(|_, place| now.duration_since(place.since) < KEEP);
        if !places.contains_key(name) && places.len() >= MOST {
            let idle = places.iter().min_by_key(|(_, place)| place.used).map(|(name, _)| name.clone());
            idle.map(|name| places.remove(&name));
        }
        let place = places.entry(name.to_owned()).or_insert_with(|| Place { bucket: Arc::default(), since: now, used: now });
        place.used = now;
        place.bucket.clone()
    }

    fn forget(&self, name: &str) {
        self.places().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets() -> Buckets {
        Buckets::new(Arc::new(tenure_kv::Memory::new())).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_is_opened_once_for_a_while() {
        let buckets = buckets();
        let first = buckets.get(Some("a")).await.unwrap();
        assert!(Arc::ptr_eq(&first, &buckets.get(Some("a")).await.unwrap()));
        tokio::time::advance(KEEP).await;
        assert!(!Arc::ptr_eq(&first, &buckets.get(Some("a")).await.unwrap()));
        assert_eq!(buckets.places().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_kept_and_the_one_that_was_used_least_recently_goes() {
        let buckets = buckets();
        for n in 0..MOST {
            buckets.get(Some(&format!("b{n}"))).await.unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        buckets.get(Some("b0")).await.unwrap();
        buckets.get(Some("more")).await.unwrap();
        assert_eq!(buckets.places().len(), MOST);
        assert!(buckets.places().contains_key("b0") && !buckets.places().contains_key("b1"));
        assert_eq!(buckets.get(Some("a b")).await.unwrap_err().kind(), Some(Kind::InvalidParams));
        assert!(!buckets.places().contains_key("a b"));
    }
}
