//! The client libraries in `sidecar/clients`: each language's own tests, and five languages together, against the daemon
//! built here.
//!
//! A language whose toolchain is not here is skipped, which is said on standard error. Where `$CI` or
//! `$TENURE_REQUIRE_CLIENTS` is set it fails instead.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{process::Command, sync::Mutex, time::timeout};

/// Longer than any of these takes, a first fetch of what it is built with included.
const PATIENCE: Duration = Duration::from_secs(900);

/// One at a time: some build into the same directory, and all start daemons and count on being heard.
static TURN: Mutex<()> = Mutex::const_new(());

const PYTHON: Tool = ("Python 3.11 or later", "python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'");
/// What is to be published, built from a copy, since building leaves its traces.
const WHEEL: &str = "copy=$(mktemp -d) && trap 'rm -rf \"$copy\"' EXIT && cp -r pyproject.toml README.md LICENSE src \"$copy\" && \
     python3 -m pip wheel --quiet --no-deps --wheel-dir \"$copy/wheel\" \"$copy\" && \
     python3 -m zipfile -l \"$copy\"/wheel/*.whl >\"$copy/list\" && grep py.typed \"$copy/list\" && grep LICENSE \"$copy/list\"";
const NODE: Tool = (
    "Node 20.3 or later with npm",
    "npm --version && node -e 'const [major, minor] = process.versions.node.split(\".\").map(Number); \
     process.exit(major > 20 || (major === 20 && minor >= 3) ? 0 : 1)'",
);
const GO: Tool = ("Go 1.23 or later", "go version | grep -Eq 'go1[.](2[3-9]|[3-9][0-9])|go[2-9]'");
const JAVA: Tool = ("a Java 17 compiler or later and Maven", "javac --release 17 -version && mvn --version");

/// What to call it, and the command that succeeds where it is there.
type Tool = (&'static str, &'static str);

#[tokio::test]
async fn python() {
    suite("python", &[PYTHON], &format!("PYTHONPATH=src python3 -m unittest -v && {WHEEL}")).await;
}

#[tokio::test]
async fn go() {
    suite("go", &[GO], "go vet ./... && go test -count=1 -v ./...").await;
}

#[tokio::test]
async fn typescript() {
    suite("typescript", &[NODE], "npm install --no-package-lock --no-audit --no-fund --ignore-scripts && npm test").await;
}

#[tokio::test]
async fn java() {
    suite("java", &[JAVA], "mvn -B --no-transfer-progress package").await;
}

#[tokio::test]
async fn shell() {
    suite("shell", &[], "sh test.sh").await;
}

#[tokio::test]
async fn five_languages_together() {
    suite("example", &[PYTHON, NODE, GO, JAVA], "python3 run.py --rounds 5").await;
}

/// Runs `script` in the directory of a client, with the daemon and the command that are built here.
async fn suite(name: &str, tools: &[Tool], script: &str) {
    let _turn = TURN.lock().await;
    for (tool, probe) in tools {
        if !run(&clients(), probe).await.0 {
            let said = format!("the client tests of {name} need {tool}");
            let required =
                ["CI", "TENURE_REQUIRE_CLIENTS"].iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
            assert!(!required, "{said}; install it, or unset CI and TENURE_REQUIRE_CLIENTS to skip them");
            return say(&format!("skipped: {said}"));
        }
    }
    let (passed, output) = run(&clients().join(name), script).await;
    assert!(passed, "{script} failed in sidecar/clients/{name}:\n{output}");
    let missing = unserved(&output);
    if !missing.is_empty() {
        say(&format!("{name}: cases were skipped since the daemon does not serve {}", missing.join(", ")));
    }
}

/// The methods that cases were skipped for.
fn unserved(output: &str) -> Vec<&str> {
    let method = |rest: &'_ str| rest.find(|c: char| !c.is_ascii_lowercase() && c != '.').unwrap_or(rest.len());
    let named = output.split("this daemon does not serve ").skip(1).map(|rest| &rest[..method(rest)]);
    named.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Says it where the test harness does not keep it to itself.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/clients").canonicalize().unwrap()
}

/// Whether `script` succeeds in `directory`, and what it said.
async fn run(directory: &Path, script: &str) -> (bool, String) {
    let said = tempfile::NamedTempFile::new().unwrap();
    let both = said.reopen().unwrap();
    // A group of its own, so that nothing that it started outlives it.
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .env("TENURED", env!("CARGO_BIN_EXE_test-tenured"))
        .env("TENURE", env!("CARGO_BIN_EXE_test-tenure"))
        .env_remove("TENURE_SOCKET")
        .env_remove("TENURE_STORE")
        .stdin(Stdio::null())
        .stdout(both.try_clone().unwrap())
        .stderr(both)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let group = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    let ended = timeout(PATIENCE, child.wait()).await;
    // Nobody is left in it, mostly.
    let _ = killpg(group, Signal::SIGKILL);
    let output = String::from_utf8_lossy(&std::fs::read(said.path()).unwrap()).into_owned();
    match ended {
        Ok(status) => (status.unwrap().success(), output),
        Err(_) => (false, format!("{output}\nnot done after {} s", PATIENCE.as_secs())),
    }
}

/// A package is published without what is around it.
#[test]
fn each_client_carries_the_licence() {
    let ours = std::fs::read(clients().join("../../LICENSE")).unwrap();
    for name in ["python", "go", "typescript", "java"] {
        assert!(std::fs::read(clients().join(name).join("LICENSE")).unwrap() == ours, "{name}/LICENSE is not a copy of LICENSE");
    }
}

#[test]
fn what_was_skipped_is_known_by_name() {
    let output =
        "a: this daemon does not serve kv.watch\nb: this daemon does not serve kv.create'\nthis daemon does not serve kv.watch";
    assert_eq!(unserved(output), ["kv.create", "kv.watch"]);
}
