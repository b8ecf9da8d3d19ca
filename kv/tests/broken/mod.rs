//! A store with one defect, to see whether the conformance suite notices.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::{
    FutureExt, StreamExt, future,
    stream::{self, BoxStream},
};
use tenure_kv::{
    Batch, Bytes, Change, Entry, Error, Event, Expect, Info, Key, KeyRange, MAX_BATCH, MAX_VALUE, Notice, Op, Page, Result,
    Revision, Since, State, Store, Ttl,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// What is wrong with a [`Broken`] store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Nothing.
    None,
    AbsentKeysReadAsPurged,
    ReturnsTheRevisionBefore,
    ReturnsRevisionsInPairs,
    ReturnsFallingRevisions,
    CreatesUnchecked,
    TombstonesBlockCreates,
    UpdatesUnchecked,
    TombstonesHaveNoRevision,
    ZeroIsAbsent,
    DeletesNeedAValue,
    PurgesAreDeletes,
    NotesAreLost,
    DeletesUnchecked,
    EmptyValuesDelete,
    ValuesAreText,
    LargestValueRefused,
    KeysFoldCase,
    LongKeysRefused,
    OversizedCutShort,
    ChecksThenWrites,
    BatchesInOrderOfKeys,
    BatchesOneByOne,
    MalformedMended,
    FullBatchesRefused,
    FencesRefuse,
    FencesIgnored,
    FencesForgottenBesideExpectations,
    FencesOfTheFirstOnly,
    FencesOfTheLastForgotten,
    FencesCheckedThenWritten,
    TtlsIgnored,
    TtlsShortened,
    TtlsOnEverything,
    MarkersStay,
    TtlOfTheFirst,
    EntriesSorted,
    EntriesLimited,
    ScansByName,
    ScansFromTheStart,
    PagesSkip,
    PagesEndEarly,
    ScansLoseTheNewest,
    ScansShowDeleted,
    PatternsAreSubtrees,
    WatchesStartEmpty,
    WatchesTellHistory,
    WatchesStartOver,
    NowIsCurrent,
    CaughtUpTwice,
    CaughtUpNever,
    CaughtUpAfterSomething,
    WatchesOpenLate,
    WatchesHideTombstones,
    TellsRefusedWrites,
    WatchesReorder,
    WatchesHoldBackTheLast,
    WatchesOverflow,
    WatchesRunOut,
    FollowersMissDeletes,
    FollowersHoldBackTheLast,
    FollowersHearNeighbours,
    FollowersHearAlone,
    FollowersRunOut,
}

#[derive(Debug)]
pub(crate) struct Broken {
    inner: Arc<dyn Store>,
    bug: Bug,
    opened: AtomicUsize,
    followed: Mutex<HashSet<Key>>,
    refused: broadcast::Sender<Key>,
}

impl Broken {
    pub(crate) async fn with(bug: Bug) -> Arc<dyn Store> {
        let inner = tenure_kv::open("memory:").await.unwrap();
        let refused = broadcast::channel(1_000).0;
        Arc::new(Self { inner, bug, opened: AtomicUsize::new(0), followed: Mutex::default(), refused })
    }

    fn key(&self, key: &Key) -> Key {
        match self.bug {
            Bug::KeysFoldCase => Key::new(key.as_str().to_lowercase()).unwrap(),
            _ => key.clone(),
        }
    }

    fn range(&self, range: &KeyRange) -> KeyRange {
        match range {
            KeyRange::Like(_) if self.bug == Bug::PatternsAreSubtrees => {
                KeyRange::new(format!("{}>", range.literal_prefix())).unwrap()
            }
            KeyRange::One(key) => KeyRange::One(self.key(key)),
            _ => range.clone(),
        }
    }

    /// Whether `op` may pass by what the store says now.
    async fn holds(&self, op: &Op) -> Result<bool> {
        let found = self.inner.entry(&op.key).await?;
        let expected = match op.expect {
            Expect::Any => true,
            Expect::Absent => !found.is_some_and(|entry| entry.is_live()),
            Expect::At(revision) => found.map_or(Revision::ZERO, |entry| entry.revision) == revision,
        };
        Ok(expected && self.fence_holds(op).await?)
    }

    async fn fence_holds(&self, op: &Op) -> Result<bool> {
        match &op.fence {
            None => Ok(true),
            Some(fence) => Ok(self.inner.entry(&fence.key).await?.is_some_and(|entry| entry.revision == fence.revision)),
        }
    }

    /// What the defect makes of one operation; an error refuses it.
    async fn spoil(&self, at: usize, count: usize, op: &mut Op) -> Result<()> {
        op.key = self.key(&op.key);
        let deletes = !matches!(op.change, Change::Put(..));
        let refuse = |op: &Op| Err(Error::conflict(&op.key, None));
        match self.bug {
            Bug::CreatesUnchecked if op.expect == Expect::Absent => op.expect = Expect::Any,
            Bug::UpdatesUnchecked if !deletes && matches!(op.expect, Expect::At(_)) => op.expect = Expect::Any,
            Bug::DeletesUnchecked if deletes => op.expect = Expect::Any,
            Bug::ZeroIsAbsent if op.expect == Expect::At(Revision::ZERO) => op.expect = Expect::Absent,
            Bug::TombstonesBlockCreates if op.expect == Expect::Absent && self.inner.entry(&op.key).await?.is_some() => {
                return refuse(op);
            }
            Bug::TombstonesHaveNoRevision => {
                let buried = self.inner.entry(&op.key).await?.is_some_and(|entry| !entry.is_live());
                if buried && matches!(op.expect, Expect::At(_)) {
                    return refuse(op);
                }
            }
            Bug::DeletesNeedAValue if deletes && self.inner.entry(&op.key).await?.is_none() => return refuse(op),
            Bug::PurgesAreDeletes => {
                if let Change::Purge { marker } = op.change {
                    op.change = Change::Delete { marker, note: Bytes::new() };
                }
            }
            Bug::LongKeysRefused if op.key.as_str().len() > 1_000 => return Err(Error::invalid("the key is too long")),
            Bug::FencesRefuse if op.fence.is_some() => return refuse(op),
            Bug::FencesIgnored => op.fence = None,
            Bug::FencesForgottenBesideExpectations if op.expect != Expect::Any => op.fence = None,
            Bug::FencesOfTheFirstOnly if at > 0 => op.fence = None,
            Bug::FencesOfTheLastForgotten if count > 1 && at + 1 == count => op.fence = None,
            Bug::FencesCheckedThenWritten => {
                if !self.fence_holds(op).await? {
                    return refuse(op);
                }
                op.fence = None;
                tokio::task::yield_now().await;
            }
            Bug::ChecksThenWrites => {
                if !self.holds(op).await? {
                    return refuse(op);
                }
                op.expect = Expect::Any;
                tokio::task::yield_now().await;
            }
            _ => {}
        }
        if let Change::Delete { note, .. } = &mut op.change
            && self.bug == Bug::NotesAreLost
        {
            *note = Bytes::new();
        }
        if let Change::Put(value, _) = &mut op.change {
            match self.bug {
                Bug::LargestValueRefused if value.len() == MAX_VALUE => return Err(Error::invalid("the value is too long")),
                Bug::OversizedCutShort => value.truncate(MAX_VALUE),
                Bug::ValuesAreText => *value = String::from_utf8_lossy(value).into_owned().into(),
                Bug::EmptyValuesDelete if value.is_empty() => op.change = Change::Delete { marker: None, note: Bytes::new() },
                _ => {}
            }
        }
        match &mut op.change {
            Change::Put(_, ttl) => match self.bug {
                Bug::TtlsIgnored => *ttl = None,
                Bug::TtlsShortened => *ttl = ttl.map(|_| Ttl::MIN),
                Bug::TtlsOnEverything => *ttl = Some(ttl.unwrap_or(Ttl::MIN)),
                _ => {}
            },
            Change::Delete { marker, .. } | Change::Purge { marker } if self.bug == Bug::MarkersStay => *marker = None,
            _ => {}
        }
        Ok(())
    }

    /// What the defect makes of a batch as a whole.
    fn rearrange(&self, batch: &mut Batch) -> Result<()> {
        match self.bug {
            Bug::BatchesInOrderOfKeys => batch.ops.sort_by(|a, b| a.key.cmp(&b.key)),
            Bug::FullBatchesRefused if batch.ops.len() == MAX_BATCH => return Err(Error::invalid("the batch is too long")),
            Bug::MalformedMended => {
                batch.ops.truncate(MAX_BATCH);
                let mut last = HashMap::new();
                for op in batch.ops.drain(..) {
                    last.insert(op.key.clone(), op);
                }
                batch.ops.extend(last.into_values());
            }
            Bug::TtlOfTheFirst => {
                let first = match batch.ops.first().map(|op| &op.change) {
                    Some(Change::Put(_, ttl)) => *ttl,
                    _ => None,
                };
                for op in &mut batch.ops {
                    match &mut op.change {
                        Change::Put(_, ttl) | Change::Delete { marker: ttl, .. } | Change::Purge { marker: ttl } => *ttl = first,
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The entry as one that lives, whatever it is.
    fn revived(entry: Entry) -> Entry {
        Entry { state: State::Live(Bytes::new()), ..entry }
    }

    fn refusals(&self) -> BoxStream<'static, Entry> {
        let mut revision = Revision::new(u64::MAX / 2);
        BroadcastStream::new(self.refused.subscribe())
            .filter_map(|refused| future::ready(refused.ok()))
            .map(move |key| {
                revision = revision.next();
                Entry { key, revision, state: State::Live("refused".into()), created: std::time::SystemTime::now() }
            })
            .boxed()
    }
}

#[async_trait]
impl Store for Broken {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.inner.bucket(name).await
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        let found = self.inner.entry(&self.key(key)).await?;
        if found.is_none() && self.bug == Bug::AbsentKeysReadAsPurged {
            let (key, revision, created) = (key.clone(), Revision::ZERO, std::time::SystemTime::now());
            return Ok(Some(Entry { key, revision, state: State::Purged, created }));
        }
        Ok(found.map(|entry| Entry { key: key.clone(), ..entry }))
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let mut found = self.inner.entries(keys).await?;
        match self.bug {
            Bug::EntriesSorted => found.sort_by_key(|entry| entry.as_ref().map(|entry| entry.key.clone())),
            Bug::EntriesLimited => found.iter_mut().skip(1_024).for_each(|entry| *entry = None),
            _ => {}
        }
        Ok(found)
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        let range = self.range(range);
        let from = if self.bug == Bug::ScansFromTheStart { Revision::ZERO } else { from };
        let mut page = self.inner.scan(&range, from, limit).await?;
        match self.bug {
            Bug::ScansByName => page.entries.sort_by(|a, b| a.key.cmp(&b.key)),
            Bug::PagesSkip if !page.complete => drop(page.entries.pop()),
            Bug::PagesEndEarly => page.complete = true,
            Bug::ScansLoseTheNewest => drop(page.entries.pop()),
            Bug::ScansShowDeleted => {
                let mut events = self.inner.watch(range, Since::After(from)).await?;
                while let Some(Event::Entry(entry)) = events.next().await.transpose()? {
                    if !entry.is_live() && entry.revision <= page.through {
                        page.entries.push(Self::revived(entry));
                    }
                }
                page.entries.sort_by_key(|entry| entry.revision);
            }
            _ => {}
        }
        Ok(page)
    }

    async fn commit(&self, mut batch: Batch) -> Result<Revision> {
        if self.bug == Bug::MalformedMended && batch.ops.is_empty() {
            return Ok(Revision::ZERO);
        }
        let keys: Vec<_> = batch.ops.iter().map(|op| op.key.clone()).collect();
        let count = batch.ops.len();
        self.rearrange(&mut batch)?;
        for (at, op) in batch.ops.iter_mut().enumerate() {
            self.spoil(at, count, op).await?;
        }
        let outcome = if self.bug == Bug::BatchesOneByOne && count > 1 {
            let mut last = Ok(Revision::ZERO);
            for op in batch.ops {
                last = Ok(self.inner.commit(op.into()).await?);
                tokio::task::yield_now().await;
            }
            last
        } else {
            self.inner.commit(batch).await
        };
        match outcome {
            Err(error) if error.is_conflict() && self.bug == Bug::TellsRefusedWrites => {
                for key in keys {
                    // Nobody may be watching.
                    drop(self.refused.send(key));
                }
                Err(error)
            }
            Ok(revision) => Ok(match self.bug {
                Bug::ReturnsTheRevisionBefore => Revision::new(revision.get() - 1),
                Bug::ReturnsRevisionsInPairs => Revision::new(revision.get() | 1),
                Bug::ReturnsFallingRevisions => Revision::new(1_000_000 - revision.get()),
                _ => revision,
            }),
            other => other,
        }
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        if self.opened.fetch_add(1, Ordering::Relaxed) >= 1_000 && self.bug == Bug::WatchesRunOut {
            return Err(Error::unavailable("too many consumers"));
        }
        let since = match (self.bug, since) {
            (Bug::WatchesStartEmpty, Since::Current) | (Bug::WatchesStartEmpty, Since::History) => Since::Now,
            (Bug::WatchesStartOver, Since::After(_)) | (Bug::NowIsCurrent, Since::Now) => Since::Current,
            _ => since,
        };
        let asked = range.clone();
        let range = self.range(&range);
        if self.bug == Bug::WatchesOpenLate {
            let inner = self.inner.clone();
            return Ok(stream::once(async move { inner.watch(range, since).await.unwrap() }).flatten().boxed());
        }
        let events = self.inner.watch(range.clone(), since).await?;
        Ok(match self.bug {
            Bug::WatchesTellHistory => {
                let mut first = true;
                let twice = move |event: Result<Event>| {
                    let older = match &event {
                        Ok(Event::Entry(entry)) if std::mem::take(&mut first) && entry.revision.get() > 1 => {
                            Some(Ok(Event::Entry(Entry { revision: Revision::new(entry.revision.get() - 1), ..entry.clone() })))
                        }
                        _ => None,
                    };
                    stream::iter(older.into_iter().chain([event]))
                };
                events.flat_map(twice).boxed()
            }
            Bug::CaughtUpTwice => events
                .flat_map(|event| {
                    let again = matches!(event, Ok(Event::CaughtUp)).then_some(Ok(Event::CaughtUp));
                    stream::iter([event].into_iter().chain(again))
                })
                .boxed(),
            Bug::CaughtUpNever => events.filter(|event| future::ready(!matches!(event, Ok(Event::CaughtUp)))).boxed(),
            Bug::CaughtUpAfterSomething => {
                let mut told = false;
                events
                    .filter(move |event| {
                        told |= matches!(event, Ok(Event::Entry(_)));
                        future::ready(told)
                    })
                    .boxed()
            }
            Bug::WatchesHideTombstones => {
                events.filter(|event| future::ready(!matches!(event, Ok(Event::Entry(entry)) if !entry.is_live()))).boxed()
            }
            Bug::TellsRefusedWrites => {
                let refusals = self.refusals().filter(move |entry| future::ready(asked.contains(&entry.key)));
                stream::select(events, refusals.map(|entry| Ok(Event::Entry(entry)))).boxed()
            }
            Bug::WatchesReorder => events
                .ready_chunks(2)
                .flat_map(|mut pair| {
                    pair.reverse();
                    stream::iter(pair)
                })
                .boxed(),
            Bug::WatchesHoldBackTheLast => {
                let held = |held: &mut Option<Result<Event>>, event| {
                    let caught_up = matches!(event, Ok(Event::CaughtUp));
                    future::ready(Some(if caught_up { Some(event) } else { held.replace(event) }))
                };
                events.scan(None, held).filter_map(future::ready).boxed()
            }
            Bug::WatchesOverflow => stream::once(async move {
                let mut events = events;
                let mut ready = Vec::new();
                while let Some(Some(event)) = events.next().now_or_never() {
                    ready.push(event);
                }
                let (count, mut at) = (ready.len(), 0);
                ready.retain(|_| {
                    at += 1;
                    at <= 20 || at == count
                });
                stream::iter(ready).chain(events)
            })
            .flatten()
            .boxed(),
            _ => events,
        })
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        if self.opened.fetch_add(1, Ordering::Relaxed) >= 1_000 && self.bug == Bug::FollowersRunOut {
            return Err(Error::unavailable("too many consumers"));
        }
        let first = self.followed.lock().unwrap().insert(key.clone());
        if self.bug == Bug::FollowersHearAlone && !first {
            return Ok(stream::pending().boxed());
        }
        if self.bug == Bug::FollowersHearNeighbours {
            let events = self.inner.watch(KeyRange::All, Since::Now).await?;
            let notice =
                |event| future::ready(if let Ok(Event::Entry(entry)) = event { Some(Notice::Entry(entry)) } else { None });
            return Ok(events.filter_map(notice).boxed());
        }
        let notices = self.inner.follow(&self.key(key)).await?;
        Ok(match self.bug {
            Bug::FollowersMissDeletes => {
                notices.filter(|notice| future::ready(!matches!(notice, Notice::Entry(entry) if !entry.is_live()))).boxed()
            }
            Bug::FollowersHoldBackTheLast => {
                let held = |held: &mut Option<Notice>, notice| future::ready(Some(held.replace(notice)));
                notices.scan(None, held).filter_map(future::ready).boxed()
            }
            Bug::TellsRefusedWrites => {
                let key = key.clone();
                let refusals = self.refusals().filter(move |entry| future::ready(entry.key == key));
                stream::select(notices, refusals.map(Notice::Entry)).boxed()
            }
            _ => notices,
        })
    }
}
