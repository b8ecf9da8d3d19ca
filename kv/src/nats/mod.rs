//! The store on a NATS JetStream bucket.
//!
//! A bucket `NAME` is the stream `KV_NAME`, readable by any NATS key-value client. Writes are single messages
//! with an expectation, or atomic batches; reads are direct gets; a watch is a consumer of its own; notices
//! about one key come from the stream's republished writes.

mod api;
mod bucket;
mod buffer;
mod commit;
mod consumer;
mod examine;
mod follow;
mod height;
mod link;
mod names;
mod own;
mod permissions;
mod plain;
mod read;
mod replies;
mod target;
mod walk;
mod watch;
mod write;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;

pub(crate) use self::examine::examine;
use self::{
    bucket::Facts,
    height::Height,
    link::{Failure, Link},
    names::Names,
    own::Own,
    plain::Traits,
    read::Reader,
    replies::Replies,
    target::Target,
    write::Writer,
};
use crate::{Batch, Beside, Entry, Event, Info, Key, KeyRange, Notice, Page, Permissions, Result, Revision, Since, Store};

/// A store on a bucket of a NATS JetStream server or cluster. Cheap to clone; clones share a connection.
#[derive(Clone)]
pub struct Nats {
    inner: Arc<Inner>,
}

/// How a bucket is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many servers keep a copy. `None` takes an existing bucket as it is and creates a new one with 1.
    pub replicas: Option<u16>,
    /// Whether a bucket that does not exist is created.
    pub create: bool,
    /// How long an answer is waited for. A write that is not acknowledged in this time has an unknown outcome.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { replicas: None, create: true, timeout: Duration::from_secs(5) }
    }
}

struct Inner {
    link: Arc<Link>,
    replies: Arc<Replies>,
    names: Names,
    options: Options,
    facts: Facts,
    info: Info,
    /// The connection whose server's version has been checked, by the number of losses before it.
    checked: AtomicU64,
    /// What an ordinary bucket can; `None` of the one for coordination.
    plain: Option<Traits>,
    /// What was written lately, where reads are answered by servers that may be behind.
    own: Option<Own>,
    height: Height,
}

impl Nats {
    /// Opens the bucket that `url` names, and creates it when there is none.
    ///
    /// `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST[:PORT]…]/BUCKET`, or `tls://` in place of `nats://`.
    /// Parameters: `replicas=3`, `create=false`, `timeout=5s`, `creds=PATH`, `nkey=PATH` (a file with the seed),
    /// `ca=PATH`, `cert=PATH` with `key=PATH`, and `context=NAME` for a context of the NATS command line, which
    /// also provides the hosts when the URL has none (`nats:///BUCKET?context=NAME`).
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the URL, a file it names, the credentials, the server's version or the bucket's
    /// settings do not serve, with the remedy; [`Error::Unavailable`](crate::Error::Unavailable) when no server answers.
    ///
    /// # Cancel safety
    /// Safe to drop; the bucket may have been created.
    pub async fn open(url: &str) -> Result<Self> {
        let target = Target::parse(url)?;
        let link = Link::connect(&target).await?;
        Self::on(link, &target.bucket, target.options, target.shown).await
    }

    /// Refuses a URL that is itself wrong; opens no connection.
    pub(crate) fn check_url(url: &str) -> Result<()> {
        Target::parse(url).map(drop)
    }

    /// What a user needs who reads the bucket and writes to `writes`.
    pub(crate) fn permissions(url: &str, writes: &[KeyRange]) -> Result<Permissions> {
        let target = Target::parse(url)?;
        let inbox = target.inbox_prefix.as_deref().unwrap_or("_INBOX");
        Ok(permissions::least(&Names::new(&target.bucket), inbox, writes))
    }

    /// The URL without secrets.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn shown_url(url: &str) -> Result<String> {
        Target::parse(url).map(|target| target.shown)
    }

    /// Opens a bucket over a client that already exists. Refusals for want of a permission reach only the
    /// client's own event callback; here they show as a time-out.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn with_client(client: async_nats::Client, bucket: &str, options: Options) -> Result<Self> {
        let bucket = target::bucket_name(bucket)?;
        let server = client.server_info();
        let shown = format!("nats://{}:{}/{bucket}", server.host, server.port);
        Self::on(Link::over(client), &bucket, options, shown).await
    }

    async fn on(link: Link, bucket: &str, options: Options, url: String) -> Result<Self> {
        let names = Names::new(bucket);
        let replies =
            Replies::open(link.client()).await.map_err(|e| Failure::Other(e.to_string()).of_read("opening an inbox"))?;
        let facts = bucket::open(&link, &names, &options).await?;
        let info = Info { url, shared: true, replicas: facts.replicas };
        Ok(Self { inner: Arc::new(Inner::new(Arc::new(link), Arc::new(replies), names, options, facts, info, None)) })
    }
}

impl Inner {
    fn new(
        link: Arc<Link>,
        replies: Arc<Replies>,
        names: Names,
        options: Options,
        facts: Facts,
        info: Info,
        plain: Option<Traits>,
    ) -> Self {
        let checked = AtomicU64::new(link.health().borrow().losses);
        let own = facts.clustered.then(Own::new);
        let height = Height::new(facts.last, link.clone(), names.clone(), options.clone());
        Self { link, replies, names, options, facts, info, checked, plain, own, height }
    }

    fn reader(&self) -> Reader<'_> {
        let direct = self.plain.is_none_or(|plain| plain.direct);
        Reader { link: &self.link, names: &self.names, replies: &self.replies, timeout: self.options.timeout, direct }
    }

    fn writer(&self) -> Writer<'_> {
        let (plain, roll_up) = (self.plain.is_some(), self.plain.is_some_and(|plain| plain.rollup));
        Writer { link: &self.link, names: &self.names, timeout: self.options.timeout, plain, roll_up }
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        match &self.own {
            Some(own) => own.entry(self.reader(), key).await,
            None => self.reader().entry(key).await,
        }
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        match &self.own {
            Some(own) => own.scan(self.reader(), range, from, limit).await,
            None => self.reader().scan(range, from, limit).await,
        }
    }

    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        let revision = commit::commit(self.writer(), self.reader(), self.facts.clustered, batch).await?;
        if let Some(own) = &self.own {
            own.note(&batch.ops, revision);
        }
        self.height.written(revision.get());
        Ok(revision)
    }

    /// After a reconnect the server may be another one, and too old.
    fn check_server(&self) -> Result<()> {
        let losses = self.link.health().borrow().losses;
        if self.checked.load(Ordering::Relaxed) != losses && self.link.is_up() {
            let server = self.link.client().server_info();
            bucket::new_enough(&server.server_name, &server.version)?;
            self.checked.store(losses, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("info", &self.inner.info).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Nats {
    fn info(&self) -> &Info {
        &self.inner.info
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.inner.entry(key).await
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        match &self.inner.own {
            Some(own) => own.entries(self.inner.reader(), keys).await,
            None => self.inner.reader().entries(keys).await,
        }
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.inner.scan(range, from, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.inner.check_server()?;
        self.inner.commit(&batch).await
    }

    async fn bucket(&self, name: &str) -> Result<Beside> {
        plain::open(&self.inner, name).await
    }

    fn outages(&self) -> u64 {
        self.inner.link.connections()
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        watch::watch(&self.inner, range, since).await
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        follow::follow(&self.inner, key).await
    }
}
