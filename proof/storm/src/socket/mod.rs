//! A client of the daemon: as a client of the store, but everything goes over the socket. It has no session of its
//! own; the merging finds out by which of the daemon's each of its holds lives.

mod elections;
mod groups;
mod locks;
mod outcome;
mod registers;

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use tenure_sidecar::{
    Client,
    protocol::{NoParams, Status},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{end, pause, pause_at},
    order::Order,
    tape::{Tape, Taped},
};

/// How long the daemon may take to say who it is.
const HELLO: Duration = Duration::from_secs(3);

/// What all roles on one connection share.
#[derive(Clone, Debug)]
struct Scene {
    client: Arc<Client>,
    tape: Arc<Tape>,
    /// The connection is over, or about to be.
    over: CancellationToken,
    /// The client ends.
    stop: CancellationToken,
    lease: Duration,
    /// How long an answer that needs no waiting may take.
    patience: Duration,
    pace: f64,
}

impl Scene {
    /// Resolves when whoever waits is to turn away: the client ends the connection by itself. Once that has ended every
    /// call has to end without that.
    async fn leaves(&self) {
        self.over.cancelled().await;
        if self.client.closed().now_or_never().is_some() {
            std::future::pending().await
        }
    }

    async fn pause(&self, rng: &mut fastrand::Rng, span: Range<u64>) {
        pause_at(self.pace, rng, span, &self.over).await;
    }
}

/// One connection after another.
pub(crate) async fn live(order: &Order, path: &Path, tape: &Arc<Tape>, stop: &CancellationToken) {
    let mut rng = fastrand::Rng::with_seed(order.seed);
    while !stop.is_cancelled() {
        if let Ok(client) = Client::connect(path).await {
            let client = Arc::new(client);
            let status = timeout(HELLO, client.call_as::<Status>("status", NoParams {})).await;
            if let Ok(Ok(status)) = status {
                tape.put(&Taped::Daemon { pid: status.pid });
                act(order, client, tape, stop, rng.fork()).await;
            }
        }
        pause(&mut rng, 20..200, stop).await;
    }
}

async fn act(order: &Order, client: Arc<Client>, tape: &Arc<Tape>, stop: &CancellationToken, mut rng: fastrand::Rng) {
    let over = stop.child_token();
    let tape = Arc::new(tape.part());
    let scene = Scene {
        client: client.clone(),
        tape: tape.clone(),
        over: over.clone(),
        stop: stop.clone(),
        lease: order.lease(),
        patience: order.patience(),
        pace: order.field.pace,
    };
    let mut roles = JoinSet::new();
    for role in roles_of(order, &scene, &mut rng) {
        roles.spawn(role);
    }
    // Now and then a connection ends in the middle, which gives up everything.
    let short = rng.f32() < 0.3;
    let span = Duration::from_millis(rng.u64(1_000..20_000));
    tokio::select! {
        () = client.closed() => {}
        () = stop.cancelled() => {}
        () = sleep(span), if short => {}
    }
    over.cancel();
    end(&mut roles, order.patience(), stop).await;
    tape.abandon();
}

fn roles_of(order: &Order, scene: &Scene, rng: &mut fastrand::Rng) -> Vec<BoxFuture<'static, ()>> {
    let field = &order.field;
    let mut roles: Vec<BoxFuture<'static, ()>> = Vec::new();
    for n in 0..field.locks {
        let waiters = if n == 0 { field.crowd } else { field.waiters };
        for _ in 0..waiters {
            roles.push(Box::pin(locks::play(scene.clone(), format!("l{n}"), rng.fork())));
        }
    }
    for n in 0..field.elections {
        roles.push(Box::pin(elections::play(scene.clone(), format!("e{n}"), rng.fork())));
        roles.push(Box::pin(elections::observe(scene.clone(), format!("e{n}"), rng.fork())));
    }
    for n in 0..field.groups {
        roles.push(Box::pin(groups::play(scene.clone(), format!("g{n}"), field.ids, rng.fork())));
        roles.push(Box::pin(groups::watch(scene.clone(), format!("g{n}"), rng.fork())));
    }
    for n in 0..field.registers {
        roles.push(Box::pin(registers::play(scene.clone(), format!("r{n}"), rng.fork())));
    }
    roles
}
