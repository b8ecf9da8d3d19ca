//! What is packaged fits the daemon: configurations that it takes, units that hold together, paths that exist.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(packaged(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The configuration in `text` is one that the daemon starts with.
fn check(text: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tenured.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenured"));
    let output = command.env_clear().args(["config", "check", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}

/// The settings of a unit, section and name; a name that comes again is one of several lines.
fn unit(name: &str) -> BTreeMap<(String, String), Vec<String>> {
    let (mut settings, mut section) = (BTreeMap::<_, Vec<_>>::new(), String::new());
    for line in text(name).lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            title.clone_into(&mut section);
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
            settings.entry((section.clone(), key.to_owned())).or_default().push(value.to_owned());
        }
    }
    settings
}

#[test]
fn the_configuration_of_the_package_is_right_also_with_all_that_it_offers() {
    let packaged = text("debian/tenured.toml");
    check(&packaged);
    // What is offered in comments: a `#` right before the key.
    let offered: String = packaged
        .lines()
        .map(|line| {
            let is_key = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            format!("{}\n", is_key.unwrap_or(line))
        })
        .filter(|line| !line.starts_with("policy"))
        .collect();
    assert!(offered.lines().any(|line| line.starts_with("http")), "{offered}");
    check(&offered);
}

#[test]
fn the_configuration_of_the_manifest_is_right() {
    let manifest = text("kubernetes/sidecar.yaml");
    let (_, rest) = manifest.split_once("tenured.toml: |\n").unwrap();
    let config: String =
        rest.lines().take_while(|line| line.starts_with("    ")).map(|line| format!("{}\n", line.trim())).collect();
    assert!(config.contains("store = "), "{config}");
    check(&config);
    // Probes ask where it listens for HTTP.
    assert!(config.contains("http = \"0.0.0.0:9464\"") && manifest.contains("containerPort: 9464"));
}

#[test]
fn the_units_fit_each_other_and_the_daemon() {
    let (service, socket) = (unit("systemd/tenured.service"), unit("systemd/tenured.socket"));
    let of = |unit: &BTreeMap<(String, String), Vec<String>>, section: &str, key: &str| {
        unit.get(&(section.to_owned(), key.to_owned())).unwrap_or_else(|| panic!("{section} has no {key}")).join(" ")
    };
    // The daemon takes one socket and says when it is ready.
    assert_eq!(of(&socket, "Socket", "ListenStream"), "/run/tenure/tenured.sock");
    assert_eq!(of(&service, "Service", "Type"), "notify");
    assert!(of(&service, "Unit", "Requires").contains("tenured.socket"));
    let user = of(&service, "Service", "User");
    assert_eq!((of(&socket, "Socket", "SocketUser"), of(&socket, "Socket", "SocketGroup")), (user.clone(), user.clone()));
    assert!(text("systemd/tenure.sysusers").starts_with(&format!("u {user} ")));
    assert!(text("systemd/tenure.tmpfiles").contains(&format!("d /run/tenure 0750 {user} {user}")));
    // The users of clients must be told apart.
    assert!(!service.contains_key(&("Service".to_owned(), "PrivateUsers".to_owned())));
    // Every client takes two descriptors at most.
    assert!(of(&service, "Service", "LimitNOFILE").parse::<u64>().unwrap() > 2 * 10_000);
}

#[test]
fn what_the_package_is_made_of_is_there() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let (_, assets) = manifest.split_once("\nassets = [").unwrap();
    let sources: Vec<&str> = assets.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next()).collect();
    assert!(sources.len() > 10, "{sources:?}");
    for source in sources.iter().filter(|source| !source.starts_with("target/") && !source.starts_with("../target/")) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(source.trim_end_matches("*.md"));
        assert!(path.exists(), "{source}");
    }
}

/// The variables that the image sets.
fn environment_of_the_image() -> Vec<(String, String)> {
    let text = text("container/Dockerfile").replace("\\\n", " ");
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
    let manifest = text("kubernetes/sidecar.yaml");
    let file = manifest.split_once("tenured.toml: |\n").unwrap().1.split_once("\n---").unwrap().0;
    let path = directory.path().join("tenured.toml");
    std::fs::write(&path, file.lines().map(|line| format!("{}\n", line.trim_start())).collect::<String>()).unwrap();
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
        std::fs::write(&path, "#!/bin/sh\n[ \"${0##*/}\" != chown ] || exec test -e \"$2\"\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = packaged("debian/postinst");
    let done = Command::new("/bin/sh").arg(script).args(["configure", "0.0.9"]).env("PATH", stubs.path()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_reload_looks_at_the_configuration_first() {
    let unit = text("systemd/tenured.service");
    let reload: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("ExecReload=")).collect();
    assert_eq!((reload.len(), reload[0]), (2, "/usr/bin/tenured config check"));
    assert!(reload[1].contains("kill -HUP"), "{reload:?}");
}
