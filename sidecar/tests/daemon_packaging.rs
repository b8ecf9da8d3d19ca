//! What is shipped to run the daemon elsewhere, against what the daemon makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

fn packaging(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The variables that the image sets.
fn environment_of_the_image() -> Vec<(String, String)> {
    let text = packaging("container/Dockerfile").replace("\\\n", " ");
    let words = text.lines().filter_map(|line| line.strip_prefix("ENV ")).flat_map(str::split_whitespace);
    words.map(|word| word.split_once('=').unwrap()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `tenured config show` in the image, with those arguments.
fn shown_in_the_image(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenured"));
    // What is run for a user without an entry in /etc/passwd has this home.
    command.args(arguments).args(["config", "show"]).env_clear().env("HOME", "/").envs(environment_of_the_image());
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn a_file_that_is_mounted_into_the_image_takes_effect() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = packaging("kubernetes/sidecar.yaml");
    let file = manifest.split_once("tenured.toml: |\n").unwrap().1.split_once("\n---").unwrap().0;
    let path = directory.path().join("tenured.toml");
    fs::write(&path, file.lines().map(|line| format!("{}\n", line.trim_start())).collect::<String>()).unwrap();
    let shown = shown_in_the_image(&["--config", path.to_str().unwrap()]);
    let store = "store = \"nats://nats.default.svc:4222/locks?replicas=3\"";
    assert!(shown.lines().any(|line| line.starts_with(store)), "each pod would be on a store of its own:\n{shown}");
    assert!(!shown.contains("# environment"), "the image overrules a file:\n{shown}");
}

#[test]
fn the_image_keeps_its_store_and_its_socket_where_its_volumes_are() {
    let shown = shown_in_the_image(&[]);
    for line in ["store = \"file:/var/lib/tenure/tenure.db\"", "socket = \"/run/tenure/tenured.sock\""] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line}:\n{shown}");
    }
}

#[test]
fn an_upgrade_goes_through_where_the_configuration_was_removed() {
    let stubs = tempfile::tempdir().unwrap();
    for name in ["systemd-sysusers", "systemd-tmpfiles", "chown"] {
        let path = stubs.path().join(name);
        fs::write(&path, "#!/bin/sh\n[ \"${0##*/}\" != chown ] || exec test -e \"$2\"\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/debian/postinst");
    let done = Command::new("/bin/sh").arg(script).args(["configure", "0.0.9"]).env("PATH", stubs.path()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_reload_looks_at_the_configuration_first() {
    let unit = packaging("systemd/tenured.service");
    let reload: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("ExecReload=")).collect();
    assert_eq!((reload.len(), reload[0]), (2, "/usr/bin/tenured config check"));
    assert!(reload[1].contains("kill -HUP"), "{reload:?}");
}
