//! What is there.

use serde::Serialize;

use super::check_key;
use crate::{
    command::{
        End, Socket,
        daemon::Daemon,
        exit::{self, Failure},
        output::{Cell, Column, Format, Printer, value_of},
        say::{data, say},
    },
    protocol::{Entry, KvEntries, KvEntry, KvGet, KvHistory, KvKeys, KvKeysListed, value},
};

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// The key
    key: String,

    /// Print the bytes of the value, and nothing else
    #[arg(long, conflicts_with = "output")]
    raw: bool,

    /// Say nothing where there is no value
    #[arg(short, long)]
    quiet: bool,

    /// Only the write of this revision, if the bucket keeps it
    #[arg(long, value_name = "N")]
    revision: Option<u64>,

    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,

    /// Print the keys alone, one a line
    #[arg(long, conflicts_with = "output")]
    raw: bool,

    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// The key
    key: String,

    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    socket: Socket,
}

/// A key that has a value.
#[derive(Debug, Serialize)]
struct Listed {
    key: String,
}

const ENTRY: [Column; 4] = [
    Column { head: "KEY", width: 0, right: false },
    Column { head: "REVISION", width: 0, right: true },
    Column { head: "WRITTEN", width: 0, right: false },
    Column { head: "VALUE", width: 0, right: false },
];

const WRITE: [Column; 4] = [
    Column { head: "REVISION", width: 0, right: true },
    Column { head: "OPERATION", width: 0, right: false },
    Column { head: "WRITTEN", width: 0, right: false },
    Column { head: "VALUE", width: 0, right: false },
];

const KEYS: [Column; 1] = [Column { head: "KEY", width: 0, right: false }];

pub(super) async fn get(args: Get, bucket: Option<String>) -> Result<End, Failure> {
    check_key(&args.key)?;
    let daemon = Daemon::at(&args.socket).await?;
    let params = KvGet { key: args.key.clone(), bucket, revision: args.revision };
    let found: KvEntry = daemon.call("kv.get", params).await?;
    let printer = Printer::new(args.output, &ENTRY);
    let Some(entry) = found.entry else {
        if !args.raw {
            printer.value(&serde_json::Value::Null);
        }
        let which = args.revision.map(|revision| format!(" of revision {revision}")).unwrap_or_default();
        if !args.quiet {
            say(&format!("{} has no value{which}", args.key));
        }
        return Ok(exit::NOT_THERE.into());
    };
    if args.raw {
        let bytes = value::decode(entry.value, entry.value_b64)
            .map_err(|error| Failure::failed(format_args!("tenured sent no value that can be read: {error}")))?;
        data(&bytes);
    } else if args.output == Format::Table {
        printer.all(&[entry], |entry| {
            vec![Cell::plain(&entry.key), Cell::plain(entry.revision), Cell::plain(&entry.created), shown(entry)]
        });
    } else {
        printer.value(&entry);
    }
    Ok(0.into())
}

pub(super) async fn list(args: List, bucket: Option<String>) -> Result<End, Failure> {
    let daemon = Daemon::at(&args.socket).await?;
    let prefix = Some(args.prefix).filter(|prefix| !prefix.is_empty());
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let params = KvKeys { prefix: prefix.clone(), after: after.take(), bucket: bucket.clone() };
        let page: KvKeysListed = daemon.call("kv.keys", params).await?;
        keys.extend(page.keys.into_iter().map(|key| Listed { key }));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if args.raw {
        data(keys.iter().map(|listed| format!("{}\n", listed.key)).collect::<String>().as_bytes());
    } else {
        Printer::new(args.output, &KEYS).all(&keys, |listed| vec![Cell::plain(&listed.key)]);
    }
    Ok(0.into())
}

pub(super) async fn history(args: History, bucket: Option<String>) -> Result<End, Failure> {
    check_key(&args.key)?;
    let daemon = Daemon::at(&args.socket).await?;
    let known: KvEntries = daemon.call("kv.history", KvHistory { key: args.key.clone(), bucket }).await?;
    let printer = Printer::new(args.output, &WRITE);
    if known.entries.is_empty() {
        if args.output == Format::Json {
            printer.all(&known.entries, |_| Vec::new());
        }
        say(&format!("nothing is known of {}", args.key));
        return Ok(exit::NOT_THERE.into());
    }
    printer.all(&known.entries, |entry| {
        vec![Cell::plain(entry.revision), Cell::plain(&entry.operation), Cell::plain(&entry.created), shown(entry)]
    });
    Ok(0.into())
}

fn shown(entry: &Entry) -> Cell {
    Cell::plain(value_of(entry.value.as_deref(), entry.value_b64.as_deref()))
}
