//! A terminal, and a program on it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::PathBuf,
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{PATIENCE, until};

/// Opening the terminal must not make it that of the tests.
const NOCTTY: i32 = rustix::fs::OFlags::NOCTTY.bits().cast_signed();

/// A terminal with a program on it, and a directory for what it is to run.
pub(crate) struct Screen {
    pub(crate) keyboard: File,
    /// Keeps the terminal from hanging up, and its modes to be looked at.
    pub(crate) terminal: File,
    shown: Arc<Mutex<String>>,
    read: Mutex<usize>,
    pub(crate) child: Child,
    pub(crate) directory: tempfile::TempDir,
}

impl Screen {
    /// Runs `program` as the leader of a session whose terminal this is.
    pub(crate) fn new(program: &[&str]) -> Self {
        Self::with(program, (0, 0), &[])
    }

    /// The same on a terminal of so many columns and rows, with these variables.
    pub(crate) fn with(program: &[&str], size: (u16, u16), environment: &[(&str, &str)]) -> Self {
        let keyboard: File = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap().into();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        resize(&keyboard, size);
        let name = PathBuf::from(ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap());
        let mut options = OpenOptions::new();
        let terminal =
            std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true).write(true), NOCTTY).open(name).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let side = || terminal.try_clone().unwrap();
        let mut command = Command::new("env");
        command
            .args(["--default-signal", "setsid", "--ctty"])
            .args(program)
            .env("PS1", "$ ")
            .env("TERM", "xterm")
            .env_remove("TENURE_SOCKET")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied());
        let child = command.stdin(side()).stdout(side()).stderr(side()).current_dir(directory.path()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut output, into) = (keyboard.try_clone().unwrap(), shown.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { keyboard, terminal, shown, read: Mutex::new(0), child, directory }
    }

    /// Makes the terminal one of so many columns and rows.
    pub(crate) fn resize(&self, size: (u16, u16)) {
        resize(&self.keyboard, size);
    }

    /// An interactive shell, ready for commands.
    pub(crate) fn shell() -> Self {
        let screen = Self::new(&["bash", "--noprofile", "--norc", "--noediting", "-i"]);
        screen.expect("$ ");
        screen
    }

    pub(crate) fn script(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    pub(crate) fn types(&self, text: &str) {
        (&self.keyboard).write_all(text.as_bytes()).unwrap();
    }

    /// Waits until `text` appears after what was expected before.
    pub(crate) fn expect(&self, text: &str) {
        let mut read = self.read.lock().unwrap();
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let shown = self.shown.lock().unwrap().clone();
            if let Some(at) = shown[*read..].find(text) {
                *read += at + text.len();
                return;
            }
            assert!(std::time::Instant::now() < end, "no {text:?} in {:?}", &shown[*read..]);
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn all(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    pub(crate) fn end(&mut self) -> i32 {
        let mut status = None;
        until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code().unwrap()
    }
}

fn resize(keyboard: &File, (ws_col, ws_row): (u16, u16)) {
    rustix::termios::tcsetwinsize(keyboard, rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
