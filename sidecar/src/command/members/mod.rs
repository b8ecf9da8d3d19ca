//! `tenure members`: who is in a group.

mod roster;
mod socket;
mod store;

use std::collections::BTreeMap;

use tenure::InstanceState;

use self::roster::Roster;
use super::{
    End,
    exit::Failure,
    keep::{self, Place},
    live::until_interrupted,
    output::{Cell, Colour, Column, Format, Printer, value_of},
    run::Signals,
    say::say,
};
use crate::protocol::{Happening, MemberView};

/// Show who is in a group, and follow who comes and goes
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE, after_help = "`tenure members --help` tells more: examples, what is printed, exit codes.")]
pub(super) struct Args {
    /// Name of the group: letters, digits, - / _ = and single dots
    group: String,

    /// Print everybody, and then every change, until interrupted
    #[arg(short = 'W', long)]
    watch: bool,

    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    place: Place,
}

const MORE: &str = "\
Examples:
  tenure members web
  tenure members web -o json | jq -r '.[] | select(.state == \"passing\") | .address'
  tenure members web --watch -o jsonl

-o json prints one array, -o jsonl one member a line. A member has id, address, zone, weight,
metadata, state (passing, warning, critical, draining, maintenance), value, label, host, pid,
session and revision.

--watch prints one event after the other: `join` for everybody who is there and everybody who
comes, `update`, `leave`, and once `sync` when those who were there have been told (not in a table).
Nothing is printed while nothing changes. While the daemon or the store is out of reach it says so on
standard error, and prints what has changed afterwards.

A member that crashed is there until its lease has run out.

Exit code: 0, also for a group with nobody in it; 64 wrong usage; 125 Tenure failed; 128 + the
signal that ended --watch.
";

const COLUMNS: [Column; 8] = [
    Column { head: "ID", width: 16, right: false },
    Column { head: "STATE", width: 11, right: false },
    Column { head: "ADDRESS", width: 21, right: false },
    Column { head: "ZONE", width: 6, right: false },
    Column { head: "WEIGHT", width: 6, right: true },
    Column { head: "HOST", width: 12, right: false },
    Column { head: "PID", width: 7, right: true },
    Column { head: "METADATA", width: 0, right: false },
];

const EVENT_COLUMNS: [Column; 9] = {
    let mut columns = [Column { head: "EVENT", width: 6, right: false }; 9];
    let mut at = 0;
    while at < COLUMNS.len() {
        columns[at + 1] = COLUMNS[at];
        at += 1;
    }
    columns
};

/// The members at one moment.
struct Listed {
    members: Vec<MemberView>,
    /// Records that were passed over.
    unreadable: usize,
}

/// What is heard of a group that is watched, or why the watch begins anew.
type News = Result<Happening, String>;

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    keep::store::check_name("group name", &args.group)?;
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    until_interrupted(&mut signals, async { if args.watch { watch(&args).await } else { list(&args).await } }).await
}

async fn list(args: &Args) -> Result<End, Failure> {
    let listed = match &args.place.store {
        Some(url) => store::list(url, &args.group).await?,
        None => socket::list(args.place.socket.path(), &args.group).await?,
    };
    Printer::new(args.output, &COLUMNS).all(&listed.members, row);
    if listed.unreadable > 0 {
        say(&format!("warning: {} records of {} cannot be read: something else wrote them", listed.unreadable, args.group));
    }
    Ok(0.into())
}

async fn watch(args: &Args) -> Result<End, Failure> {
    let mut printer = Printer::new(args.output, &EVENT_COLUMNS);
    let mut roster = Roster::default();
    let tell = |news: News| match news {
        Ok(what) => roster.take(what).iter().for_each(|what| show(&mut printer, what)),
        Err(why) => {
            say(&format!("{why}; what changes meanwhile is printed afterwards"));
            roster.begin_anew();
        }
    };
    match &args.place.store {
        Some(url) => store::watch(url, &args.group, tell).await,
        None => socket::watch(args.place.socket.path(), &args.group, tell).await,
    }
}

fn show(printer: &mut Printer, what: &Happening) {
    let (event, cells) = match what {
        Happening::Join { member } => (Cell::coloured("join", Colour::Good), row(member)),
        Happening::Update { member } => (Cell::plain("update"), row(member)),
        Happening::Leave { id, .. } => (Cell::coloured("leave", Colour::Warning), vec![Cell::plain(id)]),
        // For programs; the table shows it by what it shows.
        _ => return printer.value(what),
    };
    printer.event(what, [vec![event], cells].concat());
}

fn row(member: &MemberView) -> Vec<Cell> {
    let or_none = |text: &Option<String>| Cell::plain(text.as_deref().unwrap_or("-"));
    let state = match member.state {
        InstanceState::Passing => Cell::coloured(member.state, Colour::Good),
        InstanceState::Critical => Cell::coloured(member.state, Colour::Bad),
        _ => Cell::coloured(member.state, Colour::Warning),
    };
    vec![
        Cell::plain(&member.id),
        state,
        or_none(&member.address),
        or_none(&member.zone),
        Cell::plain(member.weight),
        Cell::plain(&member.host),
        Cell::plain(member.pid),
        Cell::plain(details(&member.metadata, &value_of(member.value.as_deref(), member.value_b64.as_deref()))),
    ]
}

fn details(metadata: &BTreeMap<String, String>, value: &str) -> String {
    let mut parts: Vec<String> = metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if !value.is_empty() {
        parts.push(value.to_owned());
    }
    parts.join(" ")
}
