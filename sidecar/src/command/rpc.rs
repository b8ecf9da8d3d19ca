//! `tenure rpc`: one call to the daemon, for scripts and the curious.

use std::time::Duration;

use serde_json::Value;

use super::{End, Socket, daemon, exit::Failure, refusal, say::data};
use crate::{CallError, protocol::ErrorObject};

/// Call a method of the daemon and print its result as JSON
///
/// What the call acquires is released when the call returns: the connection ends with it.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// The method, such as lock.get
    method: String,

    /// Its parameters as a JSON object
    #[arg(default_value = "{}", value_name = "JSON")]
    params: String,

    #[command(flatten)]
    socket: Socket,
}

const MORE: &str = "\
Example:
  tenure rpc lock.get '{\"name\":\"nightly\"}' | jq .holder

An error is one line on standard error: its kind, its code, what went wrong, and what else the
daemon said of it.

Exit code, by the kind of the error:
  1   not_found
  64  wrong usage: invalid_params, invalid_request, method_not_found, unsupported
  73  conflict: nothing was written
  74  unknown_outcome, or the daemon went away during a call that writes: read it back
  75  timeout
  77  denied
  79  lost, not_held
  125 Tenure failed: no daemon, unavailable (not applied), limit, internal
";

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
    let (path, client) = daemon::connect(socket.path(), daemon::Otherwise::Nothing).await?;
    let result = match tokio::time::timeout(PATIENCE, client.call(method, params)).await {
        Ok(Ok(result)) => result,
        Ok(Err(CallError::Refused(error))) => return Err(Failure::new(refusal::code(method, error.kind()), in_full(&error))),
        Ok(Err(error)) => return Err(refusal::failure(method, &error)),
        Err(_) => return Err(Failure { code: refusal::silence(method), ..daemon::unanswered(&path) }),
    };
    data(format!("{result:#}\n").as_bytes());
    Ok(0.into())
}

/// All that an error says, in one line.
fn in_full(error: &ErrorObject) -> String {
    let kind = error.data.get("kind").and_then(Value::as_str).unwrap_or("error");
    let mut more = error.data.clone();
    more.retain(|name, _| !["kind", "retryable"].contains(&name.as_str()));
    let more = if more.is_empty() { String::new() } else { format!("; {}", Value::Object(more)) };
    format!("{kind} (code {}): {}{more}", error.code, error.message)
}
