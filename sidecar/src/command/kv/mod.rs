//! `tenure kv`: the values that applications keep in the bucket.

mod fence;
mod read;
mod watch;
mod write;

use super::{End, exit::Failure, keep::store::check_name};

/// Read and write values: the bucket's range for applications
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,

    /// A key-value bucket of this name instead of the coordination bucket's range for applications
    #[arg(long, value_name = "NAME", global = true)]
    bucket: Option<String>,
}

const MORE: &str = "\
Examples:
  tenure kv put config/color green --ttl 1h
  tenure kv get config/color --raw
  tenure kv watch --prefix config/ -o jsonl
  tenure kv history color --bucket settings      another bucket, made with `nats kv add settings`
  tenure lock nightly -- sh -c './report | tenure kv put reports/last - --fence'

Exit code:
  0   done
  1   the key has no value (get), nothing is known of it (history)
  64  wrong usage
  73  conflict, nothing was written: the key has a value already (create), its latest write is
      another (update, --revision), or the hold that fences is over (--fence)
  74  unknown: nobody said whether it was written; read it back
  77  denied
  125 Tenure failed and wrote nothing: no daemon, no such bucket, the store is out of reach

Keys are letters, digits, - / _ = and single dots. A value is up to 1 MB of any bytes. Data goes to
standard output, everything else to standard error.
";

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print the value of a key
    #[command(after_help = "Example:\n  tenure kv get config/color --raw        the bytes of the value, and nothing else")]
    Get(read::Get),

    /// Write a value, whatever was there
    #[command(after_help = "Examples:\n  tenure kv put config/color green --ttl 1h\n  \
        gzip -c report | tenure kv put reports/last -    a dash reads standard input\n  \
        tenure kv put config/offset -- -c5               a value that looks like a flag\n  \
        tenure lock x -- tenure kv put k v --fence       only while the lock is held")]
    Put(write::Put),

    /// Write a value where the key has none
    #[command(after_help = "Example:\n  tenure kv create jobs/17 \"$(hostname)\" || echo 'somebody else has it'")]
    Create(write::Put),

    /// Write a value where the latest write is of a revision that was seen
    #[command(
        after_help = "Example:\n  tenure kv update config/color red --revision \"$(tenure kv get config/color -o json | jq .revision)\""
    )]
    Update(write::Update),

    /// Delete a key; its history shows that it was deleted
    #[command(
        visible_alias = "delete",
        after_help = "Example:\n  tenure kv del config/color --revision 42    only if nobody has written since"
    )]
    Del(write::Remove),

    /// Delete a key with all its history
    #[command(after_help = "Example:\n  tenure kv purge config/color")]
    Purge(write::Remove),

    /// List the keys that have a value
    #[command(visible_alias = "keys", after_help = "Example:\n  tenure kv ls config/ --raw | xargs -n 1 tenure kv get")]
    Ls(read::List),

    /// Print what the bucket still has of a key, oldest first: of the coordination bucket the latest write
    #[command(after_help = "Example:\n  tenure kv history config/color -o jsonl")]
    History(read::History),

    /// Print the values there are, and then every change, until interrupted
    #[command(after_help = watch::MORE)]
    Watch(watch::Watch),
}

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    let bucket = args.bucket;
    if let Some(name) = &bucket {
        tenure_kv::check_bucket(name).map_err(|error| Failure::usage(error.to_string()))?;
    }
    match args.verb {
        Verb::Get(get) => read::get(get, bucket).await,
        Verb::Ls(list) => read::list(list, bucket).await,
        Verb::History(history) => read::history(history, bucket).await,
        Verb::Watch(args) => watch::watch(args, bucket).await,
        Verb::Put(put) => write::put(put, bucket).await,
        Verb::Create(put) => write::create(put, bucket).await,
        Verb::Update(update) => write::update(update, bucket).await,
        Verb::Del(remove) => write::delete(remove, bucket).await,
        Verb::Purge(remove) => write::purge(remove, bucket).await,
    }
}

/// What names the bucket in a hint.
fn flag(bucket: Option<&str>) -> String {
    bucket.map(|name| format!(" --bucket {name}")).unwrap_or_default()
}

fn check_key(key: &str) -> Result<(), Failure> {
    check_name("key", key)
}
