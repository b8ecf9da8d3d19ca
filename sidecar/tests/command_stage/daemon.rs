//! A real daemon, and commands that use it.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Job, tenure, under_lock, until};

/// A daemon of its own, on a store of its own.
pub(crate) struct Daemon {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) job: Job,
}

/// Starts `tenured` and waits until it listens.
fn serve(socket: &Path, store: &str, options: &[&str]) -> Job {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenured"));
    let job = Job::start(command.args(["--store", store, "--socket"]).arg(socket).args(options).stdin(Stdio::null()));
    until("the daemon listens", || UnixStream::connect(socket).is_ok());
    job
}

impl Daemon {
    pub(crate) fn start(store: &str, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = if store == "file:" { format!("file:{}", directory.path().join("db").display()) } else { store.to_owned() };
        let job = serve(&directory.path().join("socket"), &url, options);
        Self { directory, job }
    }

    /// Ends it by `kind`, and starts another in its place.
    pub(crate) fn replace(self, kind: Signal) -> Self {
        let Self { directory, mut job } = self;
        job.signal(kind);
        job.wait();
        let job = serve(&directory.path().join("socket"), "memory:", &["--lease", "60s"]);
        Self { directory, job }
    }

    pub(crate) fn memory() -> Self {
        Self::start("memory:", &["--lease", "60s"])
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// `tenure lock x` with these options for a script.
    pub(crate) fn command(&self, options: &[&str], script: &str) -> Command {
        let socket = self.socket();
        let mut command = under_lock(["--socket", socket.to_str().unwrap()], options, script);
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, options: &[&str], script: &str) -> Job {
        Job::start(&mut self.command(options, script))
    }

    /// `tenure` with these arguments and the daemon's socket.
    pub(crate) fn tenure(&self, arguments: &[&str]) -> Command {
        let mut command = tenure(arguments);
        command.env("TENURE_SOCKET", self.socket()).stdin(Stdio::null());
        command
    }

    pub(crate) fn start_tenure(&self, arguments: &[&str]) -> Job {
        Job::start(&mut self.tenure(arguments))
    }

    pub(crate) fn rpc(&self, method: &str, params: &str) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
        let output = command.args(["rpc", method, params, "--socket"]).arg(self.socket()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn waiters(&self) -> usize {
        self.rpc("lock.get", r#"{"name":"x"}"#)["waiters"].as_array().unwrap().len()
    }
}

/// Tells that it runs, and does so for long.
pub(crate) const LONG: &str = "echo $$; while :; do sleep 0.2; done";
