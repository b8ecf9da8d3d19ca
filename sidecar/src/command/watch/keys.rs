//! Keys that are watched through daemons that come and go: one account of several watches.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::{
    command::{
        daemon::Daemon,
        exit::Failure,
        keep::Patience,
        live::{End, follow},
    },
    protocol::{Happening, KvWatch},
};

/// What is heard of keys, or why what was told last may be over.
pub(in crate::command) type News = Result<Happening, String>;

/// Tells all that `asked` is about; at the next daemon if this one goes.
pub(in crate::command) async fn watch(
    daemon: &Daemon,
    asked: KvWatch,
    mut tell: impl AsyncFnMut(News),
) -> Result<Infallible, Failure> {
    let mut account = Account::new(asked);
    loop {
        let end = follow(daemon, "kv.watch", account.params(), async |what| match what {
            Happening::Gap {} => tell(Err("the store was out of reach".to_owned())).await,
            what => {
                for news in account.take(what) {
                    tell(Ok(news)).await;
                }
            }
        })
        .await?;
        match end {
            End::Gone(why) => {
                tell(Err(why)).await;
                daemon.reconnect(Patience::Forever).await?;
            }
            End::Ended(why) => tell(Err(why)).await,
        }
        account.begin_anew();
    }
}

/// A write, told apart from one with the same revision in another store.
type Write = (u64, u64);

/// What has been told of which key. No I/O.
#[derive(Debug)]
struct Account {
    asked: KvWatch,
    known: HashMap<String, Write>,
    /// Begun anew: of these it is not known yet whether they still have a value.
    doubtful: HashSet<String>,
    /// What is there at the beginning is taken note of only.
    quiet: bool,
    /// Where a watch from a revision has come to.
    position: Option<u64>,
}

impl Account {
    fn new(asked: KvWatch) -> Self {
        let quiet = asked.updates_only.unwrap_or_default();
        Self { position: asked.from_revision, asked, known: HashMap::new(), doubtful: HashSet::new(), quiet }
    }

    /// What to ask the daemon for. Updates alone would not tell what changes between two watches.
    fn params(&self) -> KvWatch {
        KvWatch { from_revision: self.position, updates_only: None, ..self.asked.clone() }
    }

    /// From here on every value that is there is told again, unless the watch goes by revisions.
    fn begin_anew(&mut self) {
        self.doubtful = self.known.keys().cloned().collect();
    }

    /// What of `what` is news.
    fn take(&mut self, what: Happening) -> Vec<Happening> {
        if let Some(position) = &mut self.position {
            if let Happening::Put { revision, .. }
            | Happening::Delete { revision, .. }
            | Happening::Purge { revision, .. }
            | Happening::Expire { revision, .. } = &what
            {
                *position = revision + 1;
            }
            return vec![what];
        }
        match &what {
            Happening::Put { key, revision, value, value_b64 } => {
                let mut hash = DefaultHasher::new();
                (value, value_b64).hash(&mut hash);
                let write = (*revision, hash.finish());
                self.doubtful.remove(key);
                let known = self.known.insert(key.clone(), write) == Some(write);
                if known || self.quiet { Vec::new() } else { vec![what] }
            }
            Happening::Delete { key, .. } | Happening::Purge { key, .. } | Happening::Expire { key, .. } => {
                self.doubtful.remove(key);
                let known = self.known.remove(key).is_some();
                if self.quiet && !known { Vec::new() } else { vec![what] }
            }
            Happening::Sync { revision } => {
                self.quiet = false;
                let mut gone: Vec<String> = self.doubtful.drain().collect();
                gone.sort_unstable();
                let known = &mut self.known;
                let gone = gone.into_iter().map(|key| {
                    let (last, _) = known.remove(&key).unwrap_or_default();
                    Happening::Delete { key, revision: revision.unwrap_or(last).max(last) }
                });
                gone.chain([what.clone()]).collect()
            }
            _ => vec![what],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, revision: u64, value: &str) -> Happening {
        Happening::Put { key: key.to_owned(), revision, value: Some(value.to_owned()), value_b64: None }
    }

    fn sync() -> Happening {
        Happening::Sync { revision: Some(9) }
    }

    fn told(account: &mut Account, happenings: impl IntoIterator<Item = Happening>) -> Vec<String> {
        let told = happenings.into_iter().flat_map(|what| account.take(what));
        told.map(|what| match what {
            Happening::Put { key, value, .. } => format!("{key}={}", value.unwrap_or_default()),
            Happening::Delete { key, .. } => format!("-{key}"),
            other => format!("{other:?}").split_whitespace().next().unwrap_or_default().to_owned(),
        })
        .collect()
    }

    #[test]
    fn a_second_watch_tells_only_what_changed_since_the_first() {
        let mut account = Account::new(KvWatch::default());
        assert_eq!(
            told(&mut account, [put("a", 1, "x"), put("b", 2, "x"), put("c", 3, "x"), sync()]),
            ["a=x", "b=x", "c=x", "Sync"]
        );
        account.begin_anew();
        assert_eq!(told(&mut account, [put("a", 1, "x"), put("b", 5, "y"), sync()]), ["b=y", "-c", "Sync"]);
        account.begin_anew();
        // The same revision in a store that is another one.
        assert_eq!(told(&mut account, [put("a", 1, "z"), sync()]), ["a=z", "-b", "Sync"]);
        assert_eq!(told(&mut account, [Happening::Delete { key: "a".to_owned(), revision: 10 }]), ["-a"]);
        account.begin_anew();
        assert_eq!(told(&mut account, [sync()]), ["Sync"]);
    }

    #[test]
    fn updates_alone_include_what_changed_between_two_watches() {
        let mut account = Account::new(KvWatch { updates_only: Some(true), ..KvWatch::default() });
        assert_eq!(account.params().updates_only, None);
        assert_eq!(told(&mut account, [put("a", 1, "x"), put("b", 2, "x"), sync(), put("a", 3, "y")]), ["Sync", "a=y"]);
        account.begin_anew();
        assert_eq!(told(&mut account, [put("a", 3, "y"), put("c", 4, "x"), sync()]), ["c=x", "-b", "Sync"]);
    }

    #[test]
    fn a_watch_by_revisions_goes_on_after_the_last() {
        let mut account = Account::new(KvWatch { from_revision: Some(4), ..KvWatch::default() });
        assert_eq!(told(&mut account, [put("a", 6, "x"), sync()]), ["a=x", "Sync"]);
        account.begin_anew();
        assert_eq!(account.params().from_revision, Some(7));
    }
}
