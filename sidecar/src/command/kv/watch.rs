//! What becomes of keys.

use super::check_key;
use crate::{
    command::{
        End, Socket,
        daemon::Daemon,
        exit::Failure,
        live::until_interrupted,
        output::{Cell, Colour, Column, Format, Printer, value_of},
        run::Signals,
        say::say,
        watch::keys,
    },
    protocol::{Happening, KvWatch},
};

#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["key", "prefix"])]
pub(super) struct Watch {
    /// The key
    key: Option<String>,

    /// All keys that begin with this; '' is all there are
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    /// Begin with the writes since this revision, as far as the bucket still has them, removals too
    #[arg(long, value_name = "N", conflicts_with = "updates_only")]
    from_revision: Option<u64>,

    /// Leave out the values that are there at the beginning
    #[arg(long)]
    updates_only: bool,

    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    socket: Socket,
}

pub(super) const MORE: &str = "\
Examples:
  tenure kv watch config/color
  tenure kv watch --prefix config/ -o jsonl
  tenure watch kv config/color -- ./reload      run a command for each change

Events are `put`, `delete`, `purge` and `expire`, and for programs `sync` once what was there has been told. Several writes to
one key in quick succession may be told as the last of them. While the daemon or the store is out of reach it says so
on standard error, and prints what has changed afterwards.";

const COLUMNS: [Column; 4] = [
    Column { head: "EVENT", width: 6, right: false },
    Column { head: "REVISION", width: 8, right: true },
    Column { head: "KEY", width: 24, right: false },
    Column { head: "VALUE", width: 0, right: false },
];

pub(super) async fn watch(args: Watch, bucket: Option<String>) -> Result<End, Failure> {
    if let Some(key) = &args.key {
        check_key(key)?;
    }
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    until_interrupted(&mut signals, async {
        let daemon = Daemon::at(&args.socket).await?;
        let mut printer = Printer::new(args.output, &COLUMNS);
        let asked = KvWatch {
            key: args.key,
            prefix: args.prefix,
            bucket,
            from_revision: args.from_revision,
            updates_only: Some(args.updates_only),
        };
        let tell = async |news| match news {
            Ok(what) => show(&mut printer, &what),
            Err(why) => say(&format!("{why}; what changes meanwhile is printed afterwards")),
        };
        keys::watch(&daemon, asked, tell).await.map(|never| match never {})
    })
    .await
}

fn show(printer: &mut Printer, what: &Happening) {
    let removed = |event, key, revision: &u64| {
        vec![Cell::coloured(event, Colour::Warning), Cell::plain(revision), Cell::plain(key), Cell::plain("")]
    };
    let cells = match what {
        Happening::Put { key, revision, value, value_b64 } => vec![
            Cell::coloured("put", Colour::Good),
            Cell::plain(revision),
            Cell::plain(key),
            Cell::plain(value_of(value.as_deref(), value_b64.as_deref())),
        ],
        Happening::Delete { key, revision } => removed("delete", key, revision),
        Happening::Purge { key, revision } => removed("purge", key, revision),
        Happening::Expire { key, revision } => removed("expire", key, revision),
        // For programs; the table shows it by what it shows.
        _ => return printer.value(what),
    };
    printer.event(what, cells);
}
