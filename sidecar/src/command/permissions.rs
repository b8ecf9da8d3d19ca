//! `tenure permissions`: the least that a user of a store needs.

use tenure::Role;

use super::{End, exit::Failure, output::Format, say::data};

/// Print the least permissions that a NATS user needs for what it does
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// What the user does
    #[arg(long, value_enum, value_name = "ROLE", required = true)]
    role: Vec<Kind>,

    /// The store: nats://HOST/BUCKET; nothing is connected to
    #[arg(long, value_name = "URL")]
    store: String,

    /// Only for names that are this, or begin with it and a dot, such as `web` for `web.eu` (holder)
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,

    /// `table` prints a block for a server's configuration, `json` what tools for user JWTs take
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Holds locks, stands for election, writes fenced values (`tenure lock --store`, `tenure elect --store`)
    Holder,
    /// Reads and watches, and writes nothing
    Observer,
    /// Joins groups (`tenure join --store`)
    Registrar,
    /// Serves others: everything that `tenured` does
    Daemon,
}

impl From<Kind> for Role {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Holder => Self::Holder,
            Kind::Observer => Self::Observer,
            Kind::Registrar => Self::Registrar,
            Kind::Daemon => Self::Daemon,
        }
    }
}

const MORE: &str = "\
Examples:
  tenure permissions --role daemon --store nats://n1/locks
  tenure permissions --role holder --prefix web --store nats://n1/locks
  tenure permissions --role holder --role registrar --store nats://n1/locks -o json

In a server's configuration the block belongs to a user:
  authorization { users: [ { user: app, password: $APP, permissions { … } } ] }
For JWTs give each subject to `nsc edit user NAME --allow-pub SUBJECT` or `--allow-sub SUBJECT`.

These users can neither create the bucket nor change, empty or delete it: open it once as somebody
who may, such as with `tenured --store URL`. All of them read all of the bucket. `tenure elect
--observe --store` keeps a session, and so needs a holder. Where users share an account, give each an
inbox of its own (`inbox_prefix` of a NATS context, which --store can name): else they may
read each other's answers. NATS lets whoever may watch name the subject that is delivered to: if others in
the account are not to be trusted, give the bucket an account of its own.

Exit code: 0; 64 wrong usage, such as a store that knows no users.
";

/// Runs the subcommand.
pub(super) fn run(args: &Args) -> Result<End, Failure> {
    let mut ranges = Vec::new();
    for role in &args.role {
        for range in Role::from(*role).writes(args.prefix.as_deref()).map_err(|error| Failure::usage(error.to_string()))? {
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
    }
    let granted = tenure_kv::permissions(&args.store, &ranges).map_err(|error| Failure::usage(error.to_string()))?;
    let text = match args.output {
        Format::Table => Ok(granted.to_string()),
        Format::Json => serde_json::to_string_pretty(&granted),
        Format::Jsonl => serde_json::to_string(&granted),
    };
    // It is made of text alone, and so cannot fail.
    data((text.unwrap_or_default() + "\n").as_bytes());
    Ok(0.into())
}
