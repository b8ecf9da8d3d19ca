//! `tenure status`: how the daemon is.

use super::{End, Socket, exit::Failure, rpc};

/// Show how the daemon is: its store, sessions and connections, as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tenure status | jq .store.url")]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
}

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    rpc::call(&args.socket, "status", serde_json::json!({})).await
}
