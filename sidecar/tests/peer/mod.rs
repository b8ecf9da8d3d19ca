//! A client in a process of another user: the test named `peer_process` of the binary that has this. Needs root.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use serde_json::{Value as Json, json};

use crate::daemon_support::{Mortal, PATIENCE};

/// Whether processes of other users can be started. Says so where not, since a test then shows less.
pub(crate) fn can_be_others() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("not root: nothing is tried as another user here; the decisions are tested as functions all the same");
    }
    root
}

/// What `peer_process` does: becomes the user it is told, and passes lines on.
pub(crate) fn process() {
    let told = |name: &str| std::env::var(name).expect("started by another test");
    let number = |text: &str| text.parse::<u32>().unwrap();
    let groups = told("PEER_GROUPS");
    let groups: Vec<Gid> =
        groups.split(',').filter(|group| !group.is_empty()).map(|group| Gid::from_raw(number(group))).collect();
    setgroups(&groups).unwrap();
    setgid(Gid::from_raw(number(&told("PEER_GID")))).unwrap();
    setuid(Uid::from_raw(number(&told("PEER_UID")))).unwrap();
    let mut stream = UnixStream::connect(told("PEER_SOCKET")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for line in std::io::stdin().lines() {
        stream.write_all(format!("{}\n", line.unwrap()).as_bytes()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        // The test harness has begun a line with the test's name.
        println!("\n{}", answer.trim_end());
    }
}

/// A connection of another user.
pub(crate) struct Peer {
    _child: Mortal,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn start(socket: &Path, uid: u32, gid: u32, groups: &str) -> Self {
        let mut child = Mortal::spawn(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "peer_process", "--ignored", "--nocapture"])
                .env("PEER_SOCKET", socket)
                .env("PEER_UID", uid.to_string())
                .env("PEER_GID", gid.to_string())
                .env("PEER_GROUPS", groups)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let (requests, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { _child: child, requests, answers }
    }

    /// One call; nothing else may come in between, so it may have no subscription.
    pub(crate) fn call(&mut self, method: &str, params: Json) -> Result<Json, Json> {
        let line = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.requests.write_all(format!("{line}\n").as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the process of the other user ended before its answer");
            let Ok(mut answer) = serde_json::from_str::<Json>(&line) else { continue };
            return if answer.get("error").is_some() { Err(answer["error"].take()) } else { Ok(answer["result"].take()) };
        }
    }
}
