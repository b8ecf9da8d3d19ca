//! Watching over somebody else's session, and ending it when it has been silent for too long.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use tenure_kv::{
    Entry, Expect, Key, Moment, Notice, Op, Revision,
    mutants::{self, Mutant},
};

use super::{Inner, timing};
use crate::{
    Result, layout,
    record::{SessionRecord, decode},
};

/// What one observer knows of one session; it asks nobody and listens to nobody by itself.
///
/// Death is never inferred from a read: it is a tombstone that was read, or one that was committed here
/// against the revision that had been silent, or against no key at all. A holder that renewed meanwhile
/// makes that commit fail, and nothing has happened.
pub(crate) struct Watched {
    key: Key,
    last: Option<Revision>,
    /// From when the silence of `last` counts.
    since: Moment,
    /// That is concluded from when our own writes were acknowledged: nobody here listened then.
    concluded: bool,
    silence: Duration,
    lease: Duration,
}

/// An observer that hears of each renewal.
pub(crate) struct Vigil {
    watched: Watched,
    notices: BoxStream<'static, Notice>,
}

/// What a [`Vigil`] asks its owner to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Read the session's key and tell [`Watched::saw`].
    Read,
    /// The window of silence is over: call [`Watched::depose`].
    Silent,
    /// The session is dead.
    Dead,
}

impl Inner {
    /// Whether `session` can be proven dead now, without waiting for a silence to pass.
    ///
    /// # Cancel safety
    /// Dropping leaves open whether the session was ended; ending it was right in either case.
    pub(crate) async fn is_dead(&self, session: &str) -> Result<bool> {
        let mut watched = Watched::new(self, session)?;
        let entry = self.patient.entry(watched.key()).await?;
        if watched.saw(self, entry.as_ref()) {
            return Ok(true);
        }
        Ok((watched.never_seen() || watched.is_silent(self)) && watched.depose(self).await)
    }
}

impl Watched {
    /// Nothing is known yet: read the session's key and tell [`Watched::saw`].
    pub(crate) fn new(inner: &Inner, session: &str) -> Result<Self> {
        Ok(Self {
            key: layout::session_key(session)?,
            last: None,
            since: inner.clock.now(),
            concluded: false,
            silence: timing::silence(inner.lease),
            lease: inner.lease,
        })
    }

    pub(crate) const fn key(&self) -> &Key {
        &self.key
    }

    /// Takes in what a read or a notice showed. True when it shows that the session is dead.
    pub(crate) fn saw(&mut self, inner: &Inner, entry: Option<&Entry>) -> bool {
        let Some(entry) = entry else {
            // Perhaps only a lagging replica: the next depose finds out by a commit.
            if self.last.is_none() {
                self.since = inner.clock.now();
            }
            return mutants::is_on(Mutant::TtlDecides);
        };
        let Some(value) = entry.value() else { return true };
        if self.last.is_none_or(|last| entry.revision > last) {
            let first = self.last.is_none();
            self.last = Some(entry.revision);
            self.since = inner.clock.now();
            // Somebody else's record may be unreadable; then our own lease serves as its measure. No session
            // has a lease outside the limits.
            self.lease = decode::<SessionRecord>(value)
                .map_or(inner.lease, |record| record.lease().clamp(timing::MIN_LEASE, timing::MAX_LEASE));
            self.silence = timing::silence(self.lease);
            self.concluded = false;
            if first && let Some(since) = inner.silent_since(entry.revision) {
                (self.since, self.concluded) = (since, true);
            }
        }
        false
    }

    /// The store was out of reach: silence so far proves nothing.
    pub(crate) fn cut_off(&mut self, inner: &Inner) {
        (self.since, self.concluded) = (inner.clock.now(), false);
    }

    /// Whether the key was absent when last looked at, so that a commit can prove the death at once.
    pub(crate) const fn never_seen(&self) -> bool {
        self.last.is_none()
    }

    /// Whether the window of silence is over already.
    pub(crate) fn is_silent(&self, inner: &Inner) -> bool {
        inner.clock.now() >= self.silent_from()
    }

    /// The length of the session's lease, as it says itself.
    pub(crate) const fn lease(&self) -> Duration {
        self.lease
    }

    /// When the window of silence is over, if nothing is heard until then.
    pub(crate) fn silent_from(&self) -> Moment {
        self.since + self.silence
    }

    /// Ends the session if it is still where it was when the silence began. True when it is dead.
    ///
    /// # Cancel safety
    /// Dropping leaves open whether the session was ended; ending it was right in either case.
    pub(crate) async fn depose(&mut self, inner: &Inner) -> bool {
        if self.concluded && !inner.is_same_bucket().await {
            self.cut_off(inner);
            return false;
        }
        let expect = self.last.map_or(Expect::Absent, Expect::At);
        let op = Op::purge(self.key.clone()).expect(expect).ttl(timing::garbage(self.lease));
        match inner.patient.commit(op.into()).await {
            Ok(_) => {
                tracing::info!(session = %self.key, "deposed a session that was silent for longer than its lease");
                true
            }
            Err(tenure_kv::Error::Conflict { .. }) => {
                let found = inner.patient.entry(&self.key).await;
                match found {
                    Ok(Some(entry)) => {
                        if entry.is_live() && self.last.is_some_and(|last| entry.revision <= last) {
                            // A lagging read; the conflict says that there is more.
                            self.cut_off(inner);
                        }
                        self.saw(inner, Some(&entry))
                    }
                    Ok(None) => {
                        // Gone by its TTL, or a lagging read: prove it next.
                        self.last = None;
                        self.since = inner.clock.now();
                        self.silence = timing::renewal_retry(self.lease);
                        false
                    }
                    Err(_) => {
                        self.cut_off(inner);
                        false
                    }
                }
            }
            Err(error) => {
                tracing::debug!(session = %self.key, %error, "the silent session could not be deposed");
                self.cut_off(inner);
                false
            }
        }
    }
}

impl Vigil {
    /// Starts to listen. Read the session's key after this and tell [`Watched::saw`].
    pub(crate) async fn new(inner: &Inner, session: &str) -> Result<Self> {
        let watched = Watched::new(inner, session)?;
        // Fused, for it is asked again after its end.
        let notices = inner.patient.follow(&watched.key).await?.fuse().boxed();
        Ok(Self { watched, notices })
    }

    /// Waits until there is something to do.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn wake(&mut self, inner: &Inner) -> Wake {
        loop {
            let end = self.watched.silent_from();
            tokio::select! {
                biased;
                notice = self.notices.next() => match notice {
                    Some(Notice::Entry(entry)) => {
                        if self.watched.saw(inner, Some(&entry)) {
                            return Wake::Dead;
                        }
                    }
                    Some(Notice::Recheck) => return Wake::Read,
                    Some(Notice::Reconnected) => {
                        self.watched.cut_off(inner);
                        return Wake::Read;
                    }
                    None => {
                        // Notices are over; without them only reads are left, until the silence has lasted.
                        let next = inner.clock.now() + timing::renewal_interval(self.watched.lease);
                        inner.clock.sleep_until(next.min(end)).await;
                        return if self.watched.is_silent(inner) { Wake::Silent } else { Wake::Read };
                    }
                },
                () = inner.clock.sleep_until(end) => return Wake::Silent,
            }
        }
    }
}

impl Deref for Vigil {
    type Target = Watched;
    fn deref(&self) -> &Watched {
        &self.watched
    }
}

impl DerefMut for Vigil {
    fn deref_mut(&mut self) -> &mut Watched {
        &mut self.watched
    }
}
