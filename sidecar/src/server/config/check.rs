//! What can be known to be wrong before the daemon starts.

use super::{
    CONFIG, Refusal,
    layers::{Effective, Origin},
};
use crate::server::{logging, policy, socket};

/// Looks at what the settings name. Their own forms have been looked at already.
///
/// # Errors
/// The first that would keep the daemon from starting, with where it was set.
pub(crate) fn check(effective: &Effective) -> Result<String, Refusal> {
    let config = &effective.settings.config;
    socket::check_group(&config.access).map_err(|error| refuse(effective, "socket_group", &error.to_string()))?;
    logging::check(&effective.settings).map_err(|said| refuse(effective, "otlp_endpoint", &said))?;
    socket::check_path(&config.socket).map_err(|error| refuse(effective, "socket", &error.to_string()))?;
    if let Some(path) = &config.policy {
        policy::check(path).map_err(|said| refuse(effective, "policy", &said))?;
    }
    Ok(match &effective.file {
        Some(path) => format!("{}: the configuration is right", path.display()),
        None => "the configuration is right; no file was read".to_owned(),
    })
}

fn refuse(effective: &Effective, key: &str, said: &str) -> Refusal {
    match effective.origin(key) {
        Origin::Default => Refusal::new(CONFIG, said),
        origin => Refusal::new(CONFIG, format!("{origin}: {key}: {said}")),
    }
}
