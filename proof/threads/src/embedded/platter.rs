//! A disk in memory that knows what was synced, and lets others go on while it syncs.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use super::medium::Medium;
use crate::sync::others;

/// Not one of the locks that are looked at: none is held where another thread may go on.
#[derive(Debug, Default)]
pub(super) struct Platter(Mutex<Bytes>);

#[derive(Clone, Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    synced: Vec<u8>,
}

impl Platter {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What is left after a power cut.
    pub(super) fn after_power_cut(&self) -> Arc<Self> {
        let synced = self.0.lock().unwrap().synced.clone();
        Arc::new(Self(Mutex::new(Bytes { now: synced.clone(), synced })))
    }

    /// Whether `text` would survive a power cut.
    pub(super) fn keeps(&self, text: &str) -> bool {
        self.0.lock().unwrap().synced.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

impl Medium for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let at = at as usize;
        out.copy_from_slice(&self.0.lock().unwrap().now[at..at + out.len()]);
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = at as usize;
        self.0.lock().unwrap().now[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().now.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        others();
        let mut bytes = self.0.lock().unwrap();
        bytes.synced = bytes.now.clone();
        drop(bytes);
        others();
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_name(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
