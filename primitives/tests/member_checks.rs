//! Checks by TCP and HTTP, against servers that come, answer badly, hang and go.

#![cfg(feature = "checks")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use tenure::{Check, Group, Instance, InstanceState, JoinOptions, Loss, Member, Session};
use tenure_kv::{Memory, Store};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

const LONG: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

async fn group() -> Group {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    Session::open(store).await.unwrap().group("web").unwrap()
}

async fn until(group: &Group, state: InstanceState) {
    let reached = async {
        let mut watch = group.watch().await.unwrap();
        loop {
            match watch.next().await.unwrap() {
                tenure::MemberEvent::Insert(record) | tenure::MemberEvent::Update(record) if record.instance.state == state => {
                    return;
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(LONG, reached).await.expect("the state is reached in time");
}

/// An HTTP server that answers whatever `answer` says now; nothing at all while that is empty.
async fn server(answer: watch::Receiver<&'static str>) -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 1_024];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                if !request.is_empty() {
                    assert!(request.starts_with("GET /health?full=1 HTTP/1.1\r\n"), "{request}");
                    assert!(request.to_lowercase().contains("host: 127.0.0.1:"), "{request}");
                }
                let answer = *answer.wait_for(|answer| !answer.is_empty()).await.unwrap();
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (port, AbortOnDropHandle::new(task))
}

async fn join(group: &Group, check: Check) -> Member {
    let check = check.interval(20 * MS).timeout(200 * MS).rise(2).fall(2);
    let options = JoinOptions::new(Instance::new()).check(check).leave_when_critical_for(Duration::from_secs(2));
    group.join("w1", options).await.unwrap()
}

#[tokio::test]
async fn http_answers_make_the_state() {
    let (say, answer) = watch::channel("HTTP/1.1 204 No Content\r\n\r\n");
    let (port, server) = server(answer).await;
    let group = group().await;
    let member = join(&group, Check::http(format!("http://127.0.0.1:{port}/health?full=1"))).await;
    assert_eq!(member.state(), InstanceState::Critical, "until it was looked at");
    until(&group, InstanceState::Passing).await;
    for (said, state) in [
        ("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", InstanceState::Warning),
        ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", InstanceState::Critical),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", InstanceState::Passing),
        ("HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", InstanceState::Critical),
        ("HTTP/1.1 200 OK\r\n\r\n", InstanceState::Passing),
        // Accepts and says nothing.
        ("", InstanceState::Critical),
        ("HTTP/1.1 200 OK\r\n\r\n", InstanceState::Passing),
        ("not http at all\r\n\r\n", InstanceState::Critical),
    ] {
        say.send_replace(said);
        until(&group, state).await;
    }
    drop(server);
    assert_eq!(tokio::time::timeout(LONG, member.lost()).await.unwrap(), Loss::Critical);
}

#[tokio::test]
async fn a_tcp_check_follows_its_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let group = group().await;
    let member = join(&group, Check::tcp(address.to_string())).await;
    until(&group, InstanceState::Passing).await;
    let revision = member.revision();
    tokio::time::sleep(100 * MS).await;
    assert_eq!(member.revision(), revision, "nothing is written while the state stays");
    drop(listener);
    until(&group, InstanceState::Critical).await;
    member.set_state(InstanceState::Draining).await.unwrap();
    let _listener = TcpListener::bind(address).await.unwrap();
    tokio::time::sleep(100 * MS).await;
    assert_eq!(member.state(), InstanceState::Draining, "checks leave that alone");
    member.set_state(InstanceState::Passing).await.unwrap();
    until(&group, InstanceState::Passing).await;
    member.leave().await.unwrap();
}
