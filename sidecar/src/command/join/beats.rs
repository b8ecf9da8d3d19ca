//! How a command tells that it is well: as services tell systemd's watchdog, by `WATCHDOG=1` on the socket
//! that `$NOTIFY_SOCKET` names.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            fs::DirBuilderExt,
            net::{SocketAddr, UnixDatagram as Datagrams},
        },
    },
    path::PathBuf,
    time::Duration,
};

use tokio::net::UnixDatagram;

/// The longest message; longer ones are cut, as by systemd.
const MAX_MESSAGE: usize = 4_096;

/// The variable that would tell the command that the watchdog is for another process.
pub(super) const NOT_FOR: &str = "WATCHDOG_PID";

/// The socket that the command tells that it is well.
#[derive(Debug)]
pub(super) struct Beats {
    directory: PathBuf,
    socket: UnixDatagram,
    /// Whoever started us may listen too.
    outer: Option<(Datagrams, SocketAddr)>,
}

impl Beats {
    pub(super) fn open() -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("tenure-{}", uuid::Uuid::new_v4().simple()));
        // For this user alone: who can write there can keep the member passing.
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let socket = UnixDatagram::bind(path_in(&directory));
        let socket = socket.inspect_err(|_| drop(std::fs::remove_dir(&directory)))?;
        Ok(Self { directory, socket, outer: std::env::var_os("NOTIFY_SOCKET").and_then(|name| outer(&name).ok()) })
    }

    /// What the command finds in its environment.
    pub(super) fn environment(&self, ttl: Duration) -> [(&'static str, OsString); 2] {
        let socket = path_in(&self.directory).into();
        [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", ttl.as_micros().to_string().into())]
    }

    /// The next beat.
    ///
    /// # Cancel safety
    /// Safe to drop; no beat is lost.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut message = [0; MAX_MESSAGE];
        loop {
            let length = self.socket.recv(&mut message).await?;
            let said = message.get(..length).unwrap_or_default();
            if let Some((socket, address)) = &self.outer {
                // It is told what it would have been told; whether it listens is its own affair.
                let _ = socket.send_to_addr(said, address);
            }
            if said.split(|byte| *byte == b'\n').any(|line| line == b"WATCHDOG=1") {
                return Ok(());
            }
        }
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        // What is left in a temporary directory does no harm.
        let _ = std::fs::remove_file(path_in(&self.directory)).and_then(|()| std::fs::remove_dir(&self.directory));
    }
}

fn path_in(directory: &std::path::Path) -> PathBuf {
    directory.join("notify")
}

fn outer(name: &OsStr) -> io::Result<(Datagrams, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = Datagrams::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
