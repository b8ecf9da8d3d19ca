//! Cuts of the power, as far as they can be had without one: what the servers keep is copied at one instant, and that
//! copy is what they find when they are started again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tenure_tests::NatsCluster;

/// Stops all servers and copies what they keep, so that the copies are of one instant. They stay stopped.
pub(super) fn copy(servers: &NatsCluster, to: &Path) -> io::Result<()> {
    (0..servers.size()).for_each(|i| servers.pause(i));
    (0..servers.size()).try_for_each(|i| {
        let place = place(to, i);
        let _ = fs::remove_dir_all(&place);
        tree(servers.store_dir(i), &place)
    })
}

/// Kills all servers, and puts the copies where they keep what they store. They are not started.
pub(super) fn restore(servers: &mut NatsCluster, from: &Path) -> io::Result<()> {
    (0..servers.size()).for_each(|i| servers.kill(i));
    (0..servers.size()).try_for_each(|i| {
        let store = servers.store_dir(i);
        fs::remove_dir_all(store)?;
        tree(&place(from, i), store)
    })
}

fn place(dir: &Path, i: usize) -> PathBuf {
    dir.join(format!("s{i}"))
}

fn tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            tree(&from, &to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}
