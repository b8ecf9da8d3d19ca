//! Users of a NATS server with exactly the permissions that `tenure permissions` prints: each does what its role does, and
//! nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod sidecar_support;

use std::{sync::Arc, time::Duration};

use async_nats::{ConnectOptions, Event, ServerError};
use sidecar_support::{settle, soon, until};
use tenure::{Instance, Role, Session, data_key, locks, membership};
use tenure_kv::{Batch, Key, KeyRange, Op, Revision, Since, Store, Ttl};
use tenure_tests::NatsServer;
use tokio::sync::mpsc;

const BUCKET: &str = "locks";
const LEASE: Duration = Duration::from_secs(20);

/// A server on which each of `users` may do what its role does, and an admin everything. The bucket is there.
struct Guarded {
    server: NatsServer,
    admin: Arc<dyn Store>,
}

impl Guarded {
    async fn start(users: &[(&str, Role, Option<&str>)]) -> Self {
        let mut config = "authorization { users: [\n  { user: admin, password: secret }\n".to_owned();
        for (name, role, prefix) in users {
            let writes = role.writes(*prefix).unwrap();
            let granted = tenure_kv::permissions(&format!("nats://anywhere/{BUCKET}"), &writes).unwrap();
            config.push_str(&format!("  {{ user: {name}, password: secret\n{granted} }}\n"));
        }
        let server = NatsServer::start_with(&(config + "] }")).await;
        let admin = settle(&url(&server, "admin", BUCKET)).await;
        Self { server, admin }
    }

    async fn store(&self, user: &str) -> Arc<dyn Store> {
        tenure_kv::open(&url(&self.server, user, BUCKET)).await.unwrap()
    }

    async fn session(&self, user: &str) -> Session {
        Session::builder(self.store(user).await).lease(LEASE).open().await.unwrap()
    }

    /// A plain client, and what it is refused.
    async fn client(&self, user: &str) -> (async_nats::Client, mpsc::UnboundedReceiver<String>) {
        let (tell, refusals) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_user_and_password(user.to_owned(), "secret".to_owned()).event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(text)) = event {
                let _ = tell.send(text);
            }
            std::future::ready(())
        });
        (options.connect(self.server.client_url()).await.unwrap(), refusals)
    }

    /// Nothing that is sent to `subject` by `user` gets through.
    async fn refuses(&self, user: &str, subject: &str) {
        let (client, mut refusals) = self.client(user).await;
        client.publish(subject.to_owned(), "{}".into()).await.unwrap();
        let said = soon(subject, refusals.recv()).await.unwrap();
        assert!(said.to_lowercase().contains("permissions violation") && said.contains(subject), "{said}");
    }
}

fn url(server: &NatsServer, user: &str, bucket: &str) -> String {
    format!("{}/{bucket}", server.client_url().replace("nats://", &format!("nats://{user}:secret@")))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn may_not_write(store: &Arc<dyn Store>, op: Op) {
    let what = format!("{op:?}");
    let error = soon(&what, store.commit(op.into())).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("may not"), "{what}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_locks_campaigns_and_writes_fenced_and_does_no_more() {
    let guarded = Guarded::start(&[("holder", Role::Holder, None), ("observer", Role::Observer, None)]).await;
    let (one, two) = (guarded.session("holder").await, guarded.session("holder").await);
    let guard = soon("the lock", one.mutex("a.b").unwrap().lock()).await.unwrap();
    let fenced = guard.commit(Op::put(data_key("x").unwrap(), "1").into()).await.unwrap();
    assert!(fenced > Revision::ZERO);
    let next = two.mutex("a.b").unwrap();
    let waiting = tokio::spawn(async move { next.lock().await });
    until("the second waits", async || {
        let queue = locks::inspect(&*guarded.admin, "a.b").await.unwrap();
        (queue.waiters.len() == 1).then_some(())
    })
    .await;
    guard.release().await.unwrap();
    let guard = soon("the hand-over", waiting).await.unwrap().unwrap();
    let leadership = soon("the office", one.election("e").unwrap().campaign("here")).await.unwrap();
    leadership.commit(Op::put(data_key("y").unwrap(), "1").into()).await.unwrap();
    let seen = locks::inspect(&*guarded.store("observer").await, "a.b").await.unwrap();
    assert_eq!(seen.holder.unwrap().token, guard.token());
    leadership.resign().await.unwrap();
    guard.release().await.unwrap();

    let store = guarded.store("holder").await;
    may_not_write(&store, Op::put(key("member.web.x"), "x")).await;
    may_not_write(&store, Op::put(key("broken.x"), "x")).await;
    let other = tenure_kv::open(&url(&guarded.server, "admin", "other")).await.unwrap();
    other.commit(Op::put(key("data.secret"), "x").into()).await.unwrap();
    for subject in [
        "$JS.API.STREAM.DELETE.KV_locks",
        "$JS.API.STREAM.PURGE.KV_locks",
        "$JS.API.STREAM.UPDATE.KV_locks",
        "$JS.API.STREAM.CREATE.KV_new",
        "$JS.API.STREAM.MSG.DELETE.KV_locks",
        "$JS.API.STREAM.SNAPSHOT.KV_locks",
        "$JS.API.STREAM.INFO.KV_other",
        "$JS.API.STREAM.MSG.GET.KV_other",
        "$JS.API.DIRECT.GET.KV_other",
        "$JS.API.DIRECT.GET.KV_other.$KV.other.data.secret",
        "$JS.API.CONSUMER.CREATE.KV_other.x.$KV.other.>",
        "$JS.API.CONSUMER.DURABLE.CREATE.KV_locks.x",
        "$KV.other.data.x",
        "$TENURE.locks.data.x",
    ] {
        guarded.refuses("holder", subject).await;
    }
    assert!(guarded.admin.entry(&data_key("x").unwrap()).await.unwrap().is_some(), "all is still there");
    for session in [one, two] {
        session.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_a_prefix_has_nothing_beside_it() {
    let guarded = Guarded::start(&[("web", Role::Holder, Some("web"))]).await;
    let session = guarded.session("web").await;
    for name in ["web", "web.eu"] {
        let guard = soon(name, session.mutex(name).unwrap().lock()).await.unwrap();
        guard.commit(Op::put(data_key(name).unwrap(), "1").into()).await.unwrap();
        guard.release().await.unwrap();
        soon(name, session.election(name).unwrap().campaign("")).await.unwrap().resign().await.unwrap();
    }
    for name in ["webs", "db"] {
        let error = soon(name, session.mutex(name).unwrap().try_lock()).await.unwrap_err();
        assert!(error.to_string().contains("may not"), "{name}: {error}");
    }
    let store = guarded.store("web").await;
    may_not_write(&store, Op::put(data_key("db").unwrap(), "x")).await;
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrar_joins_is_seen_and_removes_the_dead() {
    let guarded = Guarded::start(&[("registrar", Role::Registrar, None), ("observer", Role::Observer, None)]).await;
    let session = guarded.session("registrar").await;
    let group = session.group("web").unwrap();
    let member = soon("the place", group.join("w1", Instance::at("10.0.0.7:80"))).await.unwrap();
    let observer = guarded.store("observer").await;
    let ids = async || {
        membership::members(&*observer, "web").await.unwrap().list.into_iter().map(|member| member.id).collect::<Vec<_>>()
    };
    until("it is seen", async || (ids().await == ["w1"]).then_some(())).await;
    // Another process that is gone from one moment to the next.
    let url = url(&guarded.server, "registrar", BUCKET);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (session, member) = runtime.block_on(async {
            let store = tenure_kv::open(&url).await.unwrap();
            let session = Session::builder(store).lease(Duration::from_millis(500)).open().await.unwrap();
            let member = session.group("web").unwrap().join("w2", Instance::at("10.0.0.8:80")).await.unwrap();
            (session, member)
        });
        drop(runtime);
        drop((session, member));
    })
    .join()
    .unwrap();
    assert_eq!(ids().await, ["w1", "w2"]);
    until("the dead one is removed", async || (ids().await == ["w1"]).then_some(())).await;
    member.leave().await.unwrap();
    until("it is gone", async || ids().await.is_empty().then_some(())).await;
    let store = guarded.store("registrar").await;
    may_not_write(&store, Op::put(data_key("x").unwrap(), "x")).await;
    let error = soon("a lock", session.mutex("x").unwrap().try_lock()).await.unwrap_err();
    assert!(error.to_string().contains("may not"), "{error}");
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_reads_and_watches_and_every_write_is_refused() {
    let guarded = Guarded::start(&[("observer", Role::Observer, None)]).await;
    let x = data_key("x").unwrap();
    let first = guarded.admin.commit(Op::put(x.clone(), "1").into()).await.unwrap();
    let store = guarded.store("observer").await;
    assert_eq!(store.entry(&x).await.unwrap().unwrap().revision, first);
    assert_eq!(store.entries(&[x.clone(), key("data.none")]).await.unwrap()[0].as_ref().unwrap().revision, first);
    let page = store.scan(&KeyRange::new("data.>").unwrap(), Revision::ZERO, 10).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    let mut watch = store.watch(KeyRange::One(x.clone()), Since::Current).await.unwrap();
    let mut notices = store.follow(&x).await.unwrap();
    // Another connection's write could overtake the subscription; what the same one is answered comes after it.
    store.entry(&x).await.unwrap();
    let second = guarded.admin.commit(Op::put(x.clone(), "2").into()).await.unwrap();
    until("the watch tells", async || match futures::StreamExt::next(&mut watch).await.unwrap().unwrap() {
        tenure_kv::Event::Entry(entry) if entry.revision == second => Some(()),
        _ => None,
    })
    .await;
    soon("a notice", futures::StreamExt::next(&mut notices)).await.unwrap();
    for op in [
        Op::put(x.clone(), "3"),
        Op::put(x.clone(), "3").if_at(second),
        Op::put(key("data.new"), "3").if_absent().ttl(Ttl::MIN),
        Op::delete(x.clone()),
        Op::purge(x.clone()),
        Op::put(key("session.x"), "x"),
        Op::put(key("meta.epoch"), "x"),
    ] {
        may_not_write(&store, op).await;
    }
    let both = Batch::new().and(Op::put(x.clone(), "4").if_at(second)).and(Op::put(key("data.z"), "4"));
    assert!(soon("a batch", store.commit(both)).await.unwrap_err().is_invalid());
    for subject in ["$KV.locks.data.x", "$KV.locks._kv.fence.x", "$JS.API.STREAM.PURGE.KV_locks"] {
        guarded.refuses("observer", subject).await;
    }
    assert_eq!(guarded.admin.entry(&x).await.unwrap().unwrap().revision, second);
    assert!(guarded.admin.entry(&key("data.z")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_daemon_may_break_what_another_holds() {
    let guarded = Guarded::start(&[("holder", Role::Holder, None), ("daemon", Role::Daemon, None)]).await;
    let session = guarded.session("holder").await;
    let guard = soon("the lock", session.mutex("x").unwrap().lock()).await.unwrap();
    let store = guarded.store("holder").await;
    let error = locks::break_hold(&*store, "x", guard.token()).await.unwrap_err();
    assert!(error.to_string().contains("may not"), "{error}");
    assert!(guard.remaining() > Duration::ZERO);
    let daemon = guarded.session("daemon").await;
    locks::break_hold(&**daemon.store(), "x", guard.token()).await.unwrap();
    soon("the loss", guard.lost()).await;
    let member = soon("the place", daemon.group("web").unwrap().join("w1", Instance::at("a:1"))).await.unwrap();
    soon("the office", daemon.election("e").unwrap().campaign("")).await.unwrap().resign().await.unwrap();
    member.leave().await.unwrap();
    for session in [session, daemon] {
        session.close().await.unwrap();
    }
}
