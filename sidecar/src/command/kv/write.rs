//! What is to be there.

use std::{ffi::OsString, io::Read, os::unix::ffi::OsStringExt, time::Duration};

use serde::Serialize;
use tenure_kv::MAX_VALUE;

use super::{check_key, fence, flag};
use crate::{
    command::{
        End, Socket,
        daemon::{Daemon, millis},
        exit::{self, Failure},
        output::{Cell, Column, Format, Printer},
        say::data,
        time,
    },
    protocol::{KvDelete, KvPut, KvUpdate, Written, value},
};

// No doc comment here: it would stand in the place of those of the verbs.
#[derive(Debug, clap::Args)]
pub(super) struct Put {
    /// The key
    key: String,

    /// The value, or - to read it from standard input
    #[arg(allow_negative_numbers = true)]
    value: OsString,

    /// Forget the value after this time, such as 90s; rounded up to whole seconds
    #[arg(long, value_name = "TIME", value_parser = time)]
    ttl: Option<Duration>,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
pub(super) struct Update {
    #[command(flatten)]
    put: Put,

    /// The revision of the key's latest write, as `get` shows it
    #[arg(long, value_name = "N")]
    revision: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The key
    key: String,

    /// Only if this is still the revision of the key's latest write
    #[arg(long, value_name = "N")]
    revision: Option<u64>,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Only while the lock is held, or the election led, under which `tenure lock` or `tenure elect` runs this
    ///
    /// The store itself refuses the write once that is over, by $TENURE_FENCE with $TENURE_LOCK or $TENURE_ELECTION.
    #[arg(long)]
    fence: bool,

    /// Print the revision of the write, and nothing else
    #[arg(long, conflicts_with = "output")]
    raw: bool,

    /// How to print the revision of the write
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    socket: Socket,
}

/// A write as it is printed.
#[derive(Debug, Serialize)]
struct Done<'a> {
    key: &'a str,
    revision: u64,
}

const DONE: [Column; 2] = [Column { head: "KEY", width: 0, right: false }, Column { head: "REVISION", width: 0, right: true }];

pub(super) async fn put(args: Put, bucket: Option<String>) -> Result<End, Failure> {
    let (how, params) = args.read(bucket)?;
    write("kv.put", &params.key, params.bucket.as_deref(), &params, &how).await
}

pub(super) async fn create(args: Put, bucket: Option<String>) -> Result<End, Failure> {
    let (how, params) = args.read(bucket)?;
    write("kv.create", &params.key, params.bucket.as_deref(), &params, &how).await
}

pub(super) async fn update(args: Update, bucket: Option<String>) -> Result<End, Failure> {
    let revision = args.revision;
    let (how, KvPut { key, value, value_b64, bucket, ttl_ms, fence_lease, lock, election, fence }) = args.put.read(bucket)?;
    let params = KvUpdate { key, value, value_b64, revision, bucket, ttl_ms, fence_lease, lock, election, fence };
    write("kv.update", &params.key, params.bucket.as_deref(), &params, &how).await
}

pub(super) async fn delete(args: Remove, bucket: Option<String>) -> Result<End, Failure> {
    let (how, params) = args.read(bucket)?;
    write("kv.delete", &params.key, params.bucket.as_deref(), &params, &how).await
}

pub(super) async fn purge(args: Remove, bucket: Option<String>) -> Result<End, Failure> {
    let (how, params) = args.read(bucket)?;
    write("kv.purge", &params.key, params.bucket.as_deref(), &params, &how).await
}

impl Put {
    fn read(self, bucket: Option<String>) -> Result<(How, KvPut), Failure> {
        check_key(&self.key)?;
        if self.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(Failure::usage("--ttl 0 forgets nothing; leave it out for a value that stays"));
        }
        let fence::Fence { lock, election, token } = self.how.fence(bucket.as_deref())?;
        let (value, value_b64) = value::encode(&bytes(self.value)?);
        let ttl_ms = self.ttl.map(|ttl| millis(ttl).max(1));
        let params = KvPut { key: self.key, value, value_b64, bucket, ttl_ms, fence_lease: None, lock, election, fence: token };
        Ok((self.how, params))
    }
}

impl Remove {
    fn read(self, bucket: Option<String>) -> Result<(How, KvDelete), Failure> {
        check_key(&self.key)?;
        let fence::Fence { lock, election, token } = self.how.fence(bucket.as_deref())?;
        let params = KvDelete { key: self.key, bucket, revision: self.revision, fence_lease: None, lock, election, fence: token };
        Ok((self.how, params))
    }
}

impl How {
    fn fence(&self, bucket: Option<&str>) -> Result<fence::Fence, Failure> {
        if self.fence && bucket.is_some() {
            return Err(Failure::usage("--fence works in the coordination bucket only; leave out --bucket, or --fence"));
        }
        if self.fence { fence::from_environment() } else { Ok(fence::Fence::default()) }
    }
}

/// The bytes of a value that is written out, or comes from standard input.
fn bytes(value: OsString) -> Result<Vec<u8>, Failure> {
    let bytes = if value == "-" {
        let (mut bytes, most) = (Vec::new(), u64::try_from(MAX_VALUE).unwrap_or(u64::MAX));
        let read = std::io::stdin().lock().take(most.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| Failure::failed(format_args!("standard input cannot be read: {error}")))?;
        bytes
    } else {
        value.into_vec()
    };
    if bytes.len() > MAX_VALUE {
        return Err(Failure::usage(format!("the value has more than {MAX_VALUE} bytes, which is the limit; split it")));
    }
    Ok(bytes)
}

async fn write(method: &str, key: &str, bucket: Option<&str>, params: &impl Serialize, how: &How) -> Result<End, Failure> {
    let daemon = Daemon::at(&how.socket).await?;
    let written: Written = daemon.call(method, params).await.map_err(|failure| explained(failure, method, key, bucket))?;
    let done = Done { key, revision: written.revision };
    if how.raw {
        data(format!("{}\n", done.revision).as_bytes());
    } else if how.output == Format::Table {
        Printer::new(how.output, &DONE).all(&[done], |done| vec![Cell::plain(done.key), Cell::plain(done.revision)]);
    } else {
        Printer::new(how.output, &DONE).value(&done);
    }
    Ok(0.into())
}

/// What to do about a write that failed.
fn explained(failure: Failure, method: &str, key: &str, bucket: Option<&str>) -> Failure {
    let Failure { code, message } = failure;
    let flag = flag(bucket);
    // The store's own word for the key is of no use here. A fence's message names the hold instead.
    let of_key = ["is at revision", "is not as expected"].iter().any(|said| message.contains(&format!("{key} {said}")));
    let message = match code {
        exit::UNKNOWN => format!("{message}; it may have been written: see `tenure kv get {key}{flag}`"),
        exit::CONFLICT if of_key => match method {
            "kv.create" => {
                format!("{key} has a value already; nothing was written. To replace it use `tenure kv put` or `update`")
            }
            _ => format!(
                "the latest write to {key} is another; nothing was written. See `tenure kv get {key}{flag}`, and decide anew"
            ),
        },
        _ => message,
    };
    Failure { code, message }
}
