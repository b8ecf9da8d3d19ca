//! Lines that no client should send: wrong in every way, and right in between.

use fastrand::Rng;
use serde_json::{Map, Value as Json, json};

const METHODS: [&str; 41] = [
    "hello",
    "ping",
    "status",
    "cancel",
    "lock.acquire",
    "lock.acquire",
    "lock.acquire",
    "lock.release",
    "lock.check",
    "lock.get",
    "lock.list",
    "lock.observe",
    "lock.break",
    "election.campaign",
    "election.proclaim",
    "election.resign",
    "election.transfer",
    "election.leader",
    "election.candidates",
    "election.list",
    "election.observe",
    "member.join",
    "member.update",
    "member.beat",
    "member.leave",
    "member.list",
    "member.groups",
    "member.watch",
    "kv.get",
    "kv.put",
    "kv.create",
    "kv.update",
    "kv.delete",
    "kv.purge",
    "kv.keys",
    "kv.history",
    "kv.watch",
    "subscription.cancel",
    "rpc.discover",
    "lock.aquire",
    "",
];

const PARAMS: [&str; 35] = [
    "name",
    "name",
    "name",
    "group",
    "group",
    "lease",
    "lease",
    "key",
    "wait_ms",
    "lease_ms",
    "label",
    "priority",
    "min_tenure_ms",
    "value",
    "value_b64",
    "candidate",
    "fence",
    "id",
    "protocol",
    "heartbeat_ms",
    "address",
    "zone",
    "weight",
    "metadata",
    "state",
    "checks",
    "leave_when_critical_ms",
    "after",
    "prefix",
    "ttl_ms",
    "fence_lease",
    "subscription",
    "bucket",
    "from_revision",
    "updates_only",
];

/// Makes one line after the other, as one seed decides.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) dice: Rng,
    last: u64,
    max_line: usize,
}

impl Maker {
    pub(crate) fn new(seed: u64, max_line: usize) -> Self {
        Self { dice: Rng::with_seed(seed), last: 0, max_line }
    }

    /// A line without its end.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        let mut line = match self.dice.u8(..20) {
            0..6 => self.request().to_string().into_bytes(),
            6..10 => self.mistyped().to_string().into_bytes(),
            10..12 => self.truncated(),
            12..15 => self.mutated(),
            15 => self.noise(),
            16 => self.no_request(),
            17 => self.dressed(),
            18 => self.doubled(),
            _ => self.notification(),
        };
        line.retain(|byte| *byte != b'\n');
        line.truncate(self.max_line);
        line
    }

    /// More than a line may have.
    pub(crate) fn oversized(&mut self) -> Vec<u8> {
        let mut line = self.request().to_string().into_bytes();
        let more = self.max_line + self.dice.usize(1..self.max_line);
        line.resize(more, self.dice.choice(b" x{\xff\0").copied().unwrap());
        line
    }

    fn request(&mut self) -> Json {
        let method = *self.dice.choice(&METHODS).unwrap();
        let id = self.id();
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": self.params(method) })
    }

    fn id(&mut self) -> Json {
        self.last += 1;
        match self.dice.u8(..16) {
            0 => json!(format!("{}\u{0}\"é", self.last)),
            1 => json!(self.dice.u8(..4)),
            2 => json!(-1),
            3 => json!(1.5e300),
            4 => json!(u64::MAX - self.last),
            5 => json!("x".repeat(self.dice.usize(250..260))),
            _ => json!(self.last),
        }
    }

    /// What `method` takes, mostly.
    fn params(&mut self, method: &str) -> Json {
        let names: &[&str] = match method {
            "hello" => &["protocol"],
            "cancel" => &["id"],
            "lock.acquire" => &["name", "wait_ms"],
            "lock.break" => &["name", "fence"],
            "election.campaign" => &["name", "wait_ms", "value"],
            "member.join" => &["group", "id"],
            "member.list" | "member.watch" => &["group"],
            "kv.get" | "kv.watch" => &["key"],
            "kv.put" => &["key", "value"],
            "subscription.cancel" => &["subscription"],
            "election.transfer" => &["lease", "candidate"],
            "lock.list" | "election.list" | "member.groups" | "ping" | "status" | "rpc.discover" => &[],
            _ if method.ends_with("release") || method.ends_with("check") || method.ends_with("leave") => &["lease"],
            "election.proclaim" | "election.resign" | "member.update" | "member.beat" => &["lease"],
            _ => &["name"],
        };
        let mut params: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), self.param(name))).collect();
        while self.dice.u8(..4) == 0 {
            let name = *self.dice.choice(&PARAMS).unwrap();
            params.insert(name.to_owned(), self.param(name));
        }
        params.into()
    }

    fn param(&mut self, name: &str) -> Json {
        let number = |dice: &mut Rng, some: &[u64]| json!(dice.choice(some).unwrap());
        let text = |dice: &mut Rng, some: &[&str]| json!(dice.choice(some).unwrap());
        let long = "x".repeat(self.dice.usize(..700));
        let dice = &mut self.dice;
        match name {
            "name" | "group" | "after" | "prefix" | "zone" => {
                text(dice, &["held", "held", "a", "a", "b", "a.b", "", "a b", "..", "*", "_kv", "ä", &long])
            }
            "lease" | "fence_lease" => text(dice, &["l_1", "l_2", "l_3", "l_4", "l_01", "m_1", "", "l_18446744073709551616"]),
            "subscription" => text(dice, &["w_1", "w_2", "w_3", "", "l_1"]),
            "key" => text(dice, &["k", "k.l", "", "lock.held.x", "session.x", "..", &long]),
            // Without it some wait until they are cancelled or the connection ends.
            "wait_ms" if dice.u8(..12) == 0 => Json::Null,
            "wait_ms" => number(dice, &[0, 0, 1, 3, 20]),
            "lease_ms" | "leave_when_critical_ms" | "min_tenure_ms" | "ttl_ms" => {
                number(dice, &[0, 1, 149, 150, 1_000, 86_400_000, 86_400_001, u64::MAX])
            }
            "heartbeat_ms" => number(dice, &[0, 99, 1_000, 86_400_000, u64::MAX]),
            "fence" => number(dice, &[0, 1, 2, 50, 1 << 40, u64::MAX]),
            "from_revision" => number(dice, &[0, 1, 2, 50, u64::MAX]),
            "updates_only" => json!(dice.bool()),
            "priority" => json!(dice.i32(..)),
            "weight" => number(dice, &[0, 1, 65_535, 65_536, 1 << 32]),
            "protocol" => json!([dice.u8(..3)]),
            "value_b64" => text(dice, &["", "eA==", "?", "eA="]),
            "id" | "candidate" => match dice.u8(..4) {
                0 => json!(dice.u64(..=self.last)),
                1 => json!(long),
                _ => text(dice, &["m", "n", "a.b", ""]),
            },
            "metadata" => json!({ "k": long }),
            "state" => text(dice, &["passing", "critical", "draining", "ill"]),
            "checks" => {
                let check =
                    text(dice, &["heartbeat:1", "heartbeat:-1", "tcp:127.0.0.1:1", "http://127.0.0.1:1/x", "tcp:", "", &long]);
                json!([{ "check": check, "interval_ms": number(dice, &[0, 1_000, u64::MAX]) }])
            }
            _ => json!(long),
        }
    }

    /// Something of a type, or a size, that belongs nowhere.
    fn misfit(&mut self) -> Json {
        match self.dice.u8(..12) {
            0 => Json::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(0.5),
            4 => json!(1e308),
            5 => json!(u64::MAX),
            6 => json!(""),
            7 => json!("\u{0}\n\u{10ffff}"),
            8 => json!([]),
            9 => json!({}),
            10 => (0..self.dice.usize(..200)).fold(json!(1), |inner, _| json!([inner])),
            _ => json!({ "name": "held", "lease": "l_1" }),
        }
    }

    /// A request with a member that is something else, missing, or too much.
    fn mistyped(&mut self) -> Json {
        let mut request = self.request();
        let misfit = self.misfit();
        let deep = self.dice.bool();
        let object = if deep { &mut request["params"] } else { &mut request };
        if let Some(object) = object.as_object_mut() {
            let names: Vec<_> = object.keys().cloned().collect();
            match (self.dice.choice(&names), self.dice.u8(..4)) {
                (Some(name), 0) => drop(object.remove(name)),
                (Some(name), 1..) => drop(object.insert(name.clone(), misfit)),
                (None, _) => drop(object.insert("extra".to_owned(), misfit)),
            }
        }
        request
    }

    fn truncated(&mut self) -> Vec<u8> {
        let mut line = self.request().to_string().into_bytes();
        line.truncate(self.dice.usize(..line.len()));
        line
    }

    /// A request with bytes turned over, taken out, put in or repeated.
    fn mutated(&mut self) -> Vec<u8> {
        let mut line = self.request().to_string().into_bytes();
        for _ in 0..self.dice.usize(1..5) {
            let at = self.dice.usize(..line.len());
            match self.dice.u8(..4) {
                0 => line[at] ^= 1 << self.dice.u8(..8),
                1 => drop(line.remove(at)),
                2 => line.insert(at, *self.dice.choice(b"\"{}[]:,\\0-e.\0\xc3 ").unwrap()),
                _ => {
                    let piece = line[at..line.len().min(at + 9)].to_vec();
                    line.splice(at..at, piece);
                }
            }
            if line.is_empty() {
                break;
            }
        }
        line
    }

    fn noise(&mut self) -> Vec<u8> {
        let long = if self.dice.u8(..8) == 0 { 4_000 } else { 80 };
        (0..self.dice.usize(..long)).map(|_| self.dice.u8(..)).collect()
    }

    /// JSON, or nearly, that asks for nothing.
    fn no_request(&mut self) -> Vec<u8> {
        let deep = self.dice.usize(..3_000);
        let lines = [
            String::new(),
            "null".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            "7".to_owned(),
            format!("[{}]", self.request()),
            format!("{}{}", self.request(), self.request()),
            "[".repeat(deep),
            format!("{}1{}", "[".repeat(deep), "]".repeat(deep)),
            "{\"a\":".repeat(deep / 3),
            format!("\"{}\"", self.request()),
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":1e999,"method":"ping"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":"\ud800","method":"ping"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":-0,"method":"ping"}"#.to_owned(),
            r#"{"\u006asonrpc":"2.0","id":1e2,"method":"p\u0069ng"}"#.to_owned(),
        ];
        lines[self.dice.usize(..lines.len())].clone().into_bytes()
    }

    /// A request with white space, or what looks like it, around.
    fn dressed(&mut self) -> Vec<u8> {
        let wrap = *self.dice.choice(&[" ", "\t", "\r", "\u{feff}", "\0", "\u{a0}"]).unwrap();
        let request = self.request();
        format!("{wrap}{request}{wrap}").into_bytes()
    }

    /// A request in which a member stands twice.
    fn doubled(&mut self) -> Vec<u8> {
        let member = *self.dice.choice(&[r#""id":7,"#, r#""method":"ping","#, r#""jsonrpc":"2.0","#, r#""params":{},"#]).unwrap();
        self.request().to_string().replacen('{', &format!("{{{member}"), 1).into_bytes()
    }

    fn notification(&mut self) -> Vec<u8> {
        let mut request = self.request();
        if let Some(request) = request.as_object_mut() {
            request.remove("id");
        }
        request.to_string().into_bytes()
    }
}
