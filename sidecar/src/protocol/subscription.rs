//! Subscriptions and the `event` notification.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CandidateView, LeaderView, LockStanding, MemberView};

/// Result of the methods that subscribe: events follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subscribed {
    /// The handle of the subscription on this connection.
    pub subscription: String,
}

/// Parameters of `subscription.cancel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionCancel {
    /// The handle that subscribing returned.
    pub subscription: String,
}

/// Parameters of the `event` notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The subscription that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// The lease that it is about, where it belongs to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// With the `gap` of a watch of keys: everything before this revision has been told, as far as any was. A watch with
    /// this as `from_revision` goes on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_revision: Option<u64>,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened: `kind` of an event, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Happening {
    /// How a lock is now.
    Lock(LockStanding),
    /// Who leads now.
    Leader {
        /// Null when nobody does.
        leader: Option<LeaderView>,
    },
    /// Somebody is there who was not.
    Join {
        /// Who.
        member: MemberView,
    },
    /// Somebody has changed.
    Update {
        /// Who, as they are now.
        member: MemberView,
    },
    /// Somebody is gone.
    Leave {
        /// Who.
        id: String,
        /// Where in the store's order.
        revision: u64,
    },
    /// A key has this value now.
    Put {
        /// The key.
        key: String,
        /// The store's revision of this write.
        revision: u64,
        /// The value, where it is UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// The value in base64, where it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value_b64: Option<String>,
    },
    /// A key was deleted.
    Delete {
        /// The key.
        key: String,
        /// The store's revision of that.
        revision: u64,
    },
    /// A key was purged.
    Purge {
        /// The key.
        key: String,
        /// The store's revision of that.
        revision: u64,
    },
    /// The time of a key's value was up.
    Expire {
        /// The key.
        key: String,
        /// The store's revision by which it had gone.
        revision: u64,
    },
    /// What was there at the beginning has been told.
    Sync {
        /// Every change up to this revision has been told, where the stream has revisions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
    },
    /// What was told last may be over: the store is out of reach, and the state is told again afterwards. Of a watch of
    /// keys: writes may have been left out, but of each key the last is told; or, before `end`, the rest is left out.
    Gap {},
    /// Nothing follows.
    End {
        /// Why.
        reason: String,
    },
    /// A candidate with a higher priority asks this leader to step down.
    AskedToStepDown {
        /// Who asks.
        candidate: CandidateView,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let event = Event {
            subscription: Some("w_1".into()),
            lease: None,
            resume_revision: None,
            what: Happening::Leave { id: "a".into(), revision: 7 },
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(text, r#"{"subscription":"w_1","kind":"leave","id":"a","revision":7}"#);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        let none: Event = serde_json::from_str(r#"{"subscription":"w_1","kind":"leader","leader":null,"later":1}"#).unwrap();
        assert_eq!(none.what, Happening::Leader { leader: None });
        let free: Event =
            serde_json::from_str(r#"{"subscription":"w_1","kind":"lock","holder":null,"waiters":[],"waiting":0}"#).unwrap();
        assert_eq!(free.what, Happening::Lock(LockStanding::default()));
        let gap: Event = serde_json::from_str(r#"{"subscription":"w_1","kind":"gap","resume_revision":9}"#).unwrap();
        assert_eq!((gap.what, gap.resume_revision), (Happening::Gap {}, Some(9)));
    }
}
