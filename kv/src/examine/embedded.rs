//! A look at stores on this machine.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Finding, Level,
    timing::{ROUNDS, judged},
};
use crate::{File, FileOptions, Key, Op, Result, Store, Sync, Ttl};

/// Free space below which it will soon be too late.
const LITTLE: u64 = 256 << 20;

pub(super) fn memory() -> Vec<Finding> {
    vec![
        Finding::warning("durability", "a store in memory is lost when the process that has it ends, and nobody else sees it")
            .mend("for more than tests use file:PATH on one machine, or nats://HOST/BUCKET for several"),
    ]
}

pub(super) async fn file(path: &Path, options: FileOptions, lease: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    let shown = path.display();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned);
    findings.push(match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Finding::ok("file", format!("{shown} is there and has {} bytes", found.len())),
        Ok(_) => {
            findings.push(Finding::critical("file", format!("{shown} is no file")).mend("name a file in that directory"));
            return findings;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && parent.is_dir() => {
            findings.push(
                Finding::warning("file", format!("{shown} is not there yet"))
                    .mend(format!("it is created by `tenured --store file:{shown}`")),
            );
            return findings;
        }
        Err(error) => {
            findings.push(
                Finding::critical("file", format!("{shown} cannot be looked at: {error}"))
                    .mend("check the path and who may read it"),
            );
            return findings;
        }
    });
    findings.push(match rustix::fs::statvfs(&parent) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let says = format!("{} MB are free where it lies", free >> 20);
            if free < LITTLE {
                Finding::warning("space", says).mend("make room: a write that finds none is refused")
            } else {
                Finding::ok("space", says)
            }
        }
        Err(error) => Finding::unseen("space", format!("how much room there is cannot be seen: {error}")),
    });
    findings.push(match options.sync {
        Sync::Always => Finding::ok("sync", "every write is on disk before it is acknowledged"),
        Sync::Every(interval) => Finding::warning(
            "sync",
            format!(
                "a crash or a power cut loses what was acknowledged in the last {} ms, which may undo a grant",
                interval.as_millis()
            ),
        )
        .mend("leave ?sync= out of the URL"),
    });
    match File::open(path, options).await {
        Ok(store) => {
            findings.push(Finding::ok("format", "the file has a format that this version reads and writes"));
            match rounds(&store).await {
                Ok((reads, writes)) => {
                    findings.extend(judged("read", reads, lease));
                    findings.extend(judged("write", writes, lease));
                }
                Err(error) => findings.push(Finding::critical("write", format!("it cannot be written: {error}"))),
            }
        }
        Err(error) if error.is_unavailable() => findings.push(
            Finding::unseen("format", format!("{error}")).mend("ask the daemon that has it: `tenure doctor` without --store"),
        ),
        Err(error) => findings.push(Finding::critical("format", error.to_string())),
    }
    findings.push(Finding::new(
        "copies",
        Level::Unseen,
        "whether this disk is copied anywhere is not seen from here; a lost file loses every lock and value",
    ));
    findings
}

async fn rounds(store: &File) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let key = Key::new("meta.doctor")?;
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        store.commit(Op::put(key.clone(), "").ttl(Ttl::MIN).into()).await?;
        writes.push(begun.elapsed());
        let begun = Instant::now();
        store.entry(&key).await?;
        reads.push(begun.elapsed());
    }
    store.commit(Op::purge(key).ttl(Ttl::MIN).into()).await?;
    Ok((reads, writes))
}
