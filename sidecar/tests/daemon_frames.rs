//! Hundreds of thousands of lines that nobody should send, over real sockets, to a daemon that goes on as if nothing
//! were.
//!
//! `cargo test` sends 20,000. More with
//!
//! ```text
//! TENURE_FRAMES=1000000 cargo test --release -p tenure-sidecar --test daemon_frames -- --nocapture
//! ```
//!
//! A failure names its seed, and `TENURE_FRAMES_SEED=<seed>` in place of the other variable sends the frames of that seed
//! alone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_rig;
mod daemon_support;
mod frame_maker;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use daemon_rig::{DRAIN, PATIENCE, Rig};
use daemon_support::kind;
use frame_maker::Maker;
use serde_json::{Value as Json, json};
use tenure_sidecar::{
    Client,
    protocol::{Limits, LockBreak, Status, frame::Request},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

const FRAMES: &str = "TENURE_FRAMES";
const SEED: &str = "TENURE_FRAMES_SEED";
const FRAMES_OF_CI: u64 = 20_000;
/// Connections of one seed at the same time, and lines of each.
const CROWD: u64 = 4;
const LINES: usize = 100;
const MAX_LINE: usize = 8 << 10;

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_clients_send_every_line_is_answered_and_nobody_loses_anything() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let one = number(SEED);
    let frames = one.map_or_else(|| number(FRAMES).unwrap_or(FRAMES_OF_CI), |_| 1);
    let rig = Rig::with(Duration::from_secs(60), DRAIN, Limits { line_bytes: MAX_LINE, ..Limits::default() });
    let guard = Guard::new(&rig).await;
    let granted = Granted::default();
    let (mut sent, mut answers) = (0, BTreeMap::<String, u64>::new());
    for seed in one.unwrap_or(0).. {
        if sent >= frames {
            break;
        }
        let _again = Again(seed);
        let crowd = (0..CROWD).map(|n| talk(rig.socket(), seed * CROWD + n, guard.fence, &granted));
        for (lines, kinds) in futures::future::join_all(crowd).await {
            sent += lines;
            kinds.into_iter().for_each(|kind| *answers.entry(kind).or_default() += 1);
        }
        guard.check().await;
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "the daemon panicked");
    }
    let granted = granted.into_inner().unwrap().len();
    println!("{sent} frames, {granted} locks and offices granted, answered {answers:?}");
    for kind in
        ["result", "parse_error", "invalid_request", "method_not_found", "invalid_params", "timeout", "not_held", "cancelled"]
    {
        assert!(one.is_some() || answers.contains_key(kind), "nothing was answered {kind}");
    }
    assert!(one.is_some() || granted > 0, "nothing was granted");
    rig.leave().await;
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// Says how to see a failure again.
struct Again(u64);

impl Drop for Again {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("send them again: {SEED}={} cargo test -p tenure-sidecar --test daemon_frames", self.0);
        }
    }
}

/// Lock or election, and token, of everything that was granted.
type Granted = Mutex<BTreeSet<(String, u64)>>;

/// Sends the lines of `seed` and closes. Returns how many they were, and the kinds of the answers.
async fn talk(socket: PathBuf, seed: u64, fence: u64, granted: &Granted) -> (u64, Vec<String>) {
    let mut maker = Maker::new(seed, MAX_LINE);
    let lines: Vec<_> = (0..LINES).map(|_| maker.line()).filter(|line| !breaks(line, fence)).collect();
    let mut expected = Expected::default();
    lines.iter().for_each(|line| expected.take(line));
    let mut bytes: Vec<u8> = lines.iter().flat_map(|line| line.iter().chain(b"\n").copied()).collect();
    match maker.dice.u8(..4) {
        0 => {
            expected.refuse();
            bytes.extend(maker.oversized());
            bytes.push(b'\n');
        }
        // A line that is cut off is none.
        1 => bytes.extend(&maker.line()[..]),
        _ => {}
    }
    let (mut reader, mut writer) = UnixStream::connect(socket).await.unwrap().into_split();
    let send = async {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(maker.dice.usize(1..4_000)));
            // After a line that is too long nobody may be listening any more.
            if writer.write_all(piece).await.is_err() {
                break;
            }
            rest = more;
        }
        let _ = writer.shutdown().await;
    };
    let mut said = Vec::new();
    let hear = async { tokio::time::timeout(PATIENCE, reader.read_to_end(&mut said)).await.expect("no end came") };
    let (_, heard) = tokio::join!(send, hear);
    heard.unwrap();
    let kinds = said.strip_suffix(b"\n").map_or_else(Vec::new, |said| {
        said.split(|byte| *byte == b'\n').filter_map(|line| expected.hear(line, granted)).collect()
    });
    assert!(expected.missing.is_empty(), "not answered in seed {seed}: {:?}", expected.missing);
    (lines.len() as u64, kinds)
}

/// Whether `line` rightly ends the guard's own hold.
fn breaks(line: &[u8], fence: u64) -> bool {
    Request::parse(line).is_ok_and(|request| {
        request.method == "lock.break" && request.params::<LockBreak>().is_ok_and(|broken| broken.fence == fence)
    })
}

/// The answers that are to come, by their ids.
#[derive(Default)]
struct Expected {
    missing: HashMap<String, Vec<Due>>,
    /// Ids of several lines, whose answers are told apart by their kind at most.
    shared: HashSet<String>,
}

/// What is to be answered.
#[derive(Debug)]
enum Due {
    /// Something about a request: its method, and what it is about.
    Request(String, Option<String>),
    /// An error of this kind, as the line is no request.
    Refusal(String),
}

impl Expected {
    fn take(&mut self, line: &[u8]) {
        let (id, due) = match Request::parse(line) {
            Ok(request) => {
                let Some(id) = request.id else { return };
                let params =
                    request.params.and_then(|params| serde_json::from_str::<Json>(params.get()).ok()).unwrap_or_default();
                let about = |name: &str| params[name].as_str().map(str::to_owned);
                (json!(id), Due::Request(request.method.into_owned(), about("name").or_else(|| about("group"))))
            }
            Err(refusal) => (json!(refusal.id), Due::Refusal(refusal.error.kind().unwrap().to_string())),
        };
        let due_of_id = self.missing.entry(id.to_string()).or_default();
        due_of_id.push(due);
        if due_of_id.len() > 1 {
            self.shared.insert(id.to_string());
        }
    }

    fn refuse(&mut self) {
        self.missing.entry("null".to_owned()).or_default().push(Due::Refusal("invalid_request".to_owned()));
    }

    /// Checks what was said off, and returns its kind unless it is a notification.
    fn hear(&mut self, line: &[u8], granted: &Granted) -> Option<String> {
        let said: Json =
            serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
        assert_eq!(said["jsonrpc"], "2.0", "{said}");
        if let Some(method) = said.get("method") {
            assert!(["lease", "event"].contains(&method.as_str().unwrap()) && said.get("id").is_none(), "{said}");
            return None;
        }
        assert!(said.get("result").is_some() != said.get("error").is_some(), "{said}");
        let kind = said.get("error").map_or_else(|| "result".to_owned(), kind);
        assert_ne!(kind, "internal", "{said}");
        let id = said["id"].to_string();
        let due = self.missing.get_mut(&id).unwrap_or_else(|| panic!("nobody asked for {said}"));
        // Several requests may have had the id; an error that is about a line as such is told by its kind.
        let at = due.iter().position(|due| matches!(due, Due::Refusal(refusal) if *refusal == kind));
        let at = at.or_else(|| due.iter().position(|due| matches!(due, Due::Request(..))));
        let answered = due.swap_remove(at.unwrap_or_else(|| panic!("{due:?} was answered {said}")));
        if due.is_empty() {
            self.missing.remove(&id);
        }
        if let (Due::Request(method, Some(about)), false, "result") = (answered, self.shared.contains(&id), kind.as_str()) {
            granting(&method, about, &said["result"], granted);
        }
        Some(kind)
    }
}

/// Nothing is granted that the guard has, and no token twice.
fn granting(method: &str, about: String, result: &Json, granted: &Granted) {
    match method {
        "lock.acquire" | "election.campaign" => {
            assert_ne!(about, "held", "{method} was granted: {result}");
            let token = result["fence"].as_u64().unwrap();
            assert!(granted.lock().unwrap().insert((format!("{method} {about}"), token)), "{method} {about}: {token} twice");
        }
        "member.join" => assert!(about != "held" || result["id"] != "m", "{result}"),
        _ => {}
    }
}

/// Holds a lock, an office and a place in a group, and looks whether they are still its own.
struct Guard {
    client: Client,
    leases: Vec<Json>,
    fence: u64,
    term: u64,
}

impl Guard {
    async fn new(rig: &Rig) -> Self {
        let client = rig.connect().await;
        let lock = client.call("lock.acquire", json!({ "name": "held" })).await.unwrap();
        let office = client.call("election.campaign", json!({ "name": "held", "value": "v" })).await.unwrap();
        let member = client.call("member.join", json!({ "group": "held", "id": "m" })).await.unwrap();
        let [fence, term] = [&lock, &office].map(|hold| hold["fence"].as_u64().unwrap());
        Self { client, leases: [lock, office, member].map(|mut hold| hold["lease"].take()).into(), fence, term }
    }

    async fn ask(&self, method: &str, params: Json) -> Json {
        let answer = tokio::time::timeout(PATIENCE, self.client.call(method, params)).await;
        answer.unwrap_or_else(|_| panic!("{method} is not answered")).unwrap()
    }

    async fn check(&self) {
        let begun = Instant::now();
        loop {
            let status: Status = serde_json::from_value(self.ask("status", json!({})).await).unwrap();
            let locks = self.ask("lock.list", json!({})).await;
            let waiters = locks["locks"][0]["waiters"].as_array().map(Vec::len);
            let counts = (status.leases, status.leaderships, status.members, status.requests, status.subscriptions);
            if counts == (3, 1, 1, 0, 0)
                && status.connections == 1
                && locks["locks"].as_array().map(Vec::len) == Some(1)
                && waiters == Some(0)
            {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "something is left behind: {status:?}, {locks}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for lease in &self.leases {
            assert_eq!(self.ask("lock.check", json!({ "lease": lease })).await["held"], true);
        }
        assert_eq!(self.ask("lock.get", json!({ "name": "held" })).await["holder"]["fence"], self.fence);
        let leader = self.ask("election.leader", json!({ "name": "held" })).await;
        assert_eq!((&leader["leader"]["fence"], &leader["leader"]["value"]), (&json!(self.term), &json!("v")));
        let members = self.ask("member.list", json!({ "group": "held" })).await;
        assert_eq!((members["members"].as_array().unwrap().len(), &members["members"][0]["id"]), (1, &json!("m")));
    }
}
