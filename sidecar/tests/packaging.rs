//! What is packaged fits the daemon: configurations that it takes, units that hold together, paths that exist.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
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
