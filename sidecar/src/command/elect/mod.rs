//! `tenure elect`: run a command while leading, or watch who leads.

mod observe;
mod socket;
mod store;

use std::{ffi::OsString, time::Duration};

use super::{
    End,
    exit::Failure,
    keep::{self, Job, Words, hold_and_run, interruptible},
    output::Format,
    run::{OnLost, Signals},
};

/// Run a command while leading an election, or see who leads
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "tenure elect NAME [OPTIONS] -- COMMAND [ARGS]...\n       tenure elect NAME --observe | --leader [-o FORMAT]",
    after_long_help = MORE,
    after_help = "`tenure elect --help` tells more: examples, exit codes, who makes way for whom."
)]
pub(super) struct Args {
    /// Name of the election: letters, digits, - / _ = and single dots
    name: String,

    /// What is proclaimed while leading, for those who ask who leads: an address, say
    #[arg(long, value_name = "TEXT", conflicts_with = "look")]
    value: Option<String>,

    /// A candidate asks a leader with a lower priority to make way
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, conflicts_with = "look")]
    priority: i32,

    /// Make way: when a candidate with a higher priority asks, end the command and hand over to it
    #[arg(long = "yield", conflicts_with = "look")]
    yields: bool,

    /// Make way only after having led for so long
    #[arg(long, value_name = "TIME", value_parser = super::time, requires = "yields")]
    min_tenure: Option<Duration>,

    /// Campaign again when the command has ended or the office was lost
    #[arg(long, conflicts_with_all = ["no_wait", "wait", "look"])]
    forever: bool,

    #[command(flatten)]
    wait: keep::Wait,

    #[command(flatten)]
    lease: keep::Lease,

    /// What happens to the command when the office cannot be kept
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnLost::Term, conflicts_with = "look")]
    on_lost: OnLost,

    /// Print who leads, and every change, until interrupted
    #[arg(long, group = "look", conflicts_with_all = ["Wait", "Lease"])]
    observe: bool,

    /// Print who leads, once; exit code 1 when nobody does
    #[arg(long, group = "look", conflicts_with_all = ["Wait", "Lease"])]
    leader: bool,

    /// How to print it
    #[arg(short, long, value_enum, default_value_t, requires = "look")]
    output: Format,

    #[command(flatten)]
    place: keep::Place,

    /// The command and its arguments, after `--`; no shell is involved
    #[arg(last = true, required_unless_present = "look", conflicts_with = "look", value_name = "COMMAND")]
    command: Vec<OsString>,
}

const MORE: &str = "\
Examples:
  tenure elect scheduler -- ./scheduler        campaign, run it while leading, resign
  tenure elect scheduler --forever -- ./sched  and campaign again, whatever happens
  tenure elect db -w 30s --value 10.0.0.7:5432 -- ./primary
  tenure elect db --leader -o json | jq -r .value
  tenure elect db --observe -o jsonl           one object a line, `leader` is null for nobody

Exit code:
  the command's own, or 128 + the signal that ended it or the wait; 1 nobody leads
  (--leader); 64 wrong usage; 75 not elected in time (see -E); 79 stopped because the office
  could not be kept, or because it made way (--yield); 125 Tenure failed; 126 the command
  cannot be executed; 127 it was not found.

Environment of the command:
  TENURE_ELECTION  the election's name
  TENURE_FENCE     the term: larger for every later leader. What `tenure kv put --fence` writes
                   with it, through the daemon, is refused to a former leader
  TENURE_LEASE     the lease's id on the connection of tenure; with --store the session's id
  TENURE_SOCKET    the daemon's socket; with --store it is left as it was

Signals, the terminal, --on-lost and --kill-after are as `tenure lock --help` has them: the
command gets TERM, then KILL, both before anybody else can lead. It is only after the command has
ended that the office is resigned, and the next candidate leads at once.

With --forever a campaign follows every end of the command and every loss, after a pause of 0.1s
that doubles up to 10s and begins anew once the command has run for 10s. INT, TERM and QUIT end it,
by ending the command; so does a command that cannot be executed or found (126, 127).

Where nobody leads any of those who wait may win: unlike a lock, an election has no queue. A candidate
with a higher --priority than the leader's asks it to make way. A leader with --yield does: its
command gets TERM, and KILL after --kill-after, and then that candidate leads, whoever else waits.
Without --yield the leader stays.

--observe prints the state there is and each later one, that nobody leads included: that a leader
died is known after its lease. While the daemon or the store is out of reach it says so on standard
error, and prints the state again afterwards. States in quick succession may be printed as one.
";

const WORDS: Words = Words {
    held: "led",
    acquired: "elected",
    nobody: "led by nobody yet",
    without: "without the office",
    giving_up: "the resignation from",
    variable: "TENURE_ELECTION",
};

/// What is asked of the place where the election is held.
#[derive(Debug)]
struct Campaign {
    name: String,
    value: String,
    priority: i32,
    yields: bool,
    min_tenure: Duration,
    lease: Option<Duration>,
    label: String,
}

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    keep::store::check_name("election name", &args.name)?;
    keep::store::check_lease(args.lease.lease)?;
    let campaign = Campaign {
        label: args.lease.label(&args.command),
        name: args.name,
        value: args.value.unwrap_or_default(),
        priority: args.priority,
        yields: args.yields,
        min_tenure: args.min_tenure.unwrap_or_default(),
        lease: args.lease.lease,
    };
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    if args.observe || args.leader {
        let looking = observe::run(&campaign.name, &args.place, args.output, args.observe);
        return super::live::until_interrupted(&mut signals, looking).await;
    }
    let job = Job {
        name: &campaign.name,
        words: &WORDS,
        wait: &args.wait,
        lease: &args.lease,
        on_lost: args.on_lost,
        command: &args.command,
        forever: args.forever,
    };
    match &args.place.store {
        Some(url) => {
            let source = interruptible(&mut signals, store::open(url, &campaign)).await?;
            hold_and_run(source, &job, signals).await
        }
        None => {
            let source = interruptible(&mut signals, socket::open(args.place.socket.path(), &campaign)).await?;
            hold_and_run(source, &job, signals).await
        }
    }
}
