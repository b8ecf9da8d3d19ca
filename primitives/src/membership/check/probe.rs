//! One look from outside: a TCP connection, an HTTP GET.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    super::InstanceState::{self, Critical, Passing, Warning},
    Kind,
};

/// What is wrong with what a check is told to look at.
pub(super) fn validate(kind: &Kind) -> Result<(), String> {
    match kind {
        Kind::Heartbeat => Ok(()),
        Kind::Tcp(address) => {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            matches!(port, Some(Ok(1..))).then_some(()).ok_or_else(|| "it looks at HOST:PORT".to_owned())
        }
        Kind::Http(url) => target(url).map(drop),
    }
}

/// The URL and the address to connect to.
fn target(url: &str) -> Result<(Uri, String), String> {
    let uri: Uri = url.parse().map_err(|error| format!("its URL cannot be read: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("its URL begins with http://; no other scheme is known".to_owned());
    }
    match uri.authority() {
        Some(authority) if !authority.host().is_empty() => {
            let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
            Ok((uri, address))
        }
        _ => Err("its URL names no host".to_owned()),
    }
}

/// Looks once. The caller bounds the time; dropping ends the connection.
pub(super) async fn look(kind: &Kind) -> InstanceState {
    let seen = match kind {
        Kind::Heartbeat => return Passing,
        Kind::Tcp(address) => TcpStream::connect(address).await.map(|_| Passing).map_err(|error| error.to_string()),
        Kind::Http(url) => get(url).await.map_err(|error| error.to_string()),
    };
    seen.unwrap_or_else(|error| {
        tracing::debug!(check = %kind, %error, "the check failed");
        Critical
    })
}

async fn get(url: &str) -> Result<InstanceState, Box<dyn std::error::Error + Send + Sync>> {
    let (uri, address) = target(url)?;
    let host = uri.authority().map_or(address.as_str(), |authority| authority.as_str()).to_owned();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let stream = TcpStream::connect(&address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("tenure/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    // The head is enough: the rest of the answer is of no interest.
    let head = tokio::select! {
        biased;
        head = &mut answer => head?,
        ended = &mut connection => {
            ended?;
            answer.await?
        }
    };
    Ok(match head.status() {
        status if status.is_success() => Passing,
        StatusCode::TOO_MANY_REQUESTS => Warning,
        _ => Critical,
    })
}
