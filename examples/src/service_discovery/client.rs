//! Those who ask: each request goes to an instance that the balancer picks, and to another if that fails.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tenure::discovery::Balancer;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::stage::Fault;

/// How often a request is tried before it counts as lost.
const TRIES: u32 = 5;
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a request, or of one try.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was answered by this server.
    Answered { by: String, tries: u32 },
    /// A try failed at this server; another follows.
    Failed { at: String, why: String },
    /// It was given up.
    Lost { why: String },
}

/// Asks again and again until `stop`. A request that is under way then is finished.
pub(super) async fn run(balancer: Balancer, tell: mpsc::Sender<Outcome>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let outcome = ask(&balancer, &tell).await;
        if tell.send(outcome).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

async fn ask(balancer: &Balancer, tell: &mpsc::Sender<Outcome>) -> Outcome {
    let mut why = String::new();
    for tries in 1..=TRIES {
        let picked = match balancer.wait_pick(PATIENCE).await {
            Ok(picked) => picked,
            Err(error) => return Outcome::Lost { why: error.to_string() },
        };
        let answer = timeout(PATIENCE, get(picked.address())).await.unwrap_or_else(|_| Err("no answer in time".into()));
        match answer {
            Ok(by) => {
                picked.succeeded();
                return Outcome::Answered { by, tries };
            }
            Err(error) => {
                why = error.to_string();
                let at = picked.member().id.clone();
                picked.failed();
                if tell.send(Outcome::Failed { at, why: why.clone() }).await.is_err() {
                    break;
                }
            }
        }
    }
    Outcome::Lost { why }
}

/// Asks the server at `address`, which answers with its name.
async fn get(address: &str) -> Result<String, Fault> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/work").header("host", address).body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        Ok::<_, Fault>(String::from_utf8(response.into_body().collect().await?.to_bytes().into())?)
    };
    // The connection moves only while it is polled, and ends with its only request.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
