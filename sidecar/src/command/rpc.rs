//! `tenure rpc`: one call to the daemon, for scripts and the curious.

use std::time::Duration;

use serde_json::Value;

use super::{End, Socket, daemon, exit::Failure, say::print};

/// Call a method of the daemon and print its result as JSON
///
/// What the call acquires is released when the call returns: the connection ends with it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The method, such as lock.get
    method: String,

    /// Its parameters as a JSON object
    #[arg(default_value = "{}", value_name = "JSON")]
    params: String,

    #[command(flatten)]
    socket: Socket,
}

/// How long a call may take; none of those useful here waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    let params: Value = serde_json::from_str(&args.params).map_err(|error| {
        Failure::usage(format!("the parameters are not JSON ({error}); write an object such as '{{\"name\":\"nightly\"}}'"))
    })?;
    call(&args.socket, &args.method, params).await
}

/// Calls and prints.
pub(super) async fn call(socket: &Socket, method: &str, params: Value) -> Result<End, Failure> {
    let (path, client) = daemon::connect(socket.path()).await?;
    let answer = tokio::time::timeout(PATIENCE, client.call(method, params)).await;
    let result = answer.map_err(|_| daemon::unanswered(&path))?.map_err(|error| daemon::failure(&error))?;
    print(&format!("{result:#}\n"));
    Ok(0.into())
}
