//! A client process: it opens a session and competes for everything there is, until it is told to end or killed.

mod elections;
mod groups;
mod locks;
mod opened;
pub(crate) mod outcome;
mod registers;
mod roles;
mod views;

use std::{os::fd::AsFd as _, process::ExitCode, sync::Arc, time::Duration};

use tenure::{Session, SessionState};
use tenure_check::history::{self, Done, Op, Sight};
use tenure_kv::Store;
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::roles::{pause, pause_at};
use self::{
    opened::Opened,
    roles::{Role, Scene},
};
use crate::{
    Failed, clock,
    order::{Order, Way},
    tape::{Tape, Taped},
};

/// How long the roles may take to end in order once the session is over.
const ENDING: Duration = Duration::from_secs(3);

/// Runs a client process until its standard input ends or SIGTERM comes.
///
/// # Errors
/// When the tape cannot be written or the order cannot be carried out at all.
pub async fn run(order: Order) -> Result<ExitCode, Failed> {
    let stop = CancellationToken::new();
    let tape = Arc::new(Tape::create(&order.tape, order.number)?);
    let ended = dismissed()?;
    let told = stop.clone();
    let life = async {
        match order.way.clone() {
            Way::Store(url) => live(&order, &url, &tape, &told).await,
            Way::Socket(path) => crate::socket::live(&order, &path, &tape, &told).await,
        }
    };
    tokio::pin!(life);
    tokio::select! {
        () = &mut life => {}
        () = ended => {
            stop.cancel();
            // What is stuck then, such as on servers that are down, has the outcome unknown.
            let _ = timeout(ENDING * 2, life).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Resolves when this process is told to end. It is killed when the director dies, even while it is stopped.
pub(crate) fn dismissed() -> Result<impl Future<Output = ()>, Failed> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut stdin = pipe::Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            // The director writes nothing; an end means that it is gone.
            _ = stdin.read_u8() => {}
        }
    })
}

/// One session after another, on one store as long as that serves.
async fn live(order: &Order, url: &str, tape: &Arc<Tape>, stop: &CancellationToken) {
    let mut rng = fastrand::Rng::with_seed(order.seed);
    while !stop.is_cancelled() {
        let Ok(store) = tenure_kv::open(url).await else {
            pause(&mut rng, 50..400, stop).await;
            continue;
        };
        let watching = stop.child_token();
        let watched = Arc::new(tape.part());
        let mut watchers = views::start(order, &store, &watched, &watching, stop);
        // A store that opens no session for so long is opened anew.
        let mut failing = clock::now();
        while !stop.is_cancelled() && clock::now() - failing < order.patience().as_micros() as u64 {
            if let Some(session) = open(order, &store, tape, stop).await {
                act(order, session, tape, stop, rng.fork()).await;
                failing = clock::now();
            } else {
                pause(&mut rng, 50..400, stop).await;
            }
        }
        watching.cancel();
        end(&mut watchers, order.patience(), stop).await;
        watched.abandon();
    }
}

async fn open(order: &Order, store: &Arc<dyn Store>, tape: &Tape, stop: &CancellationToken) -> Option<Session> {
    let id = tape.call(Op::Open { lease_ms: order.lease_ms });
    let opened = tokio::select! {
        opened = Session::builder(store.clone()).lease(order.lease()).label(format!("client {}", order.number)).open() => opened,
        () = stop.cancelled() => {
            tape.dropped(id);
            return None;
        }
    };
    match opened {
        Ok(session) => {
            let session_of = session.id().to_owned();
            // First, since the merging has to know of it.
            tape.put(&Taped::Epoch { session_of: session_of.clone(), epoch: session.epoch().to_owned() });
            tape.done(id, Done { session: Some(session_of), ..Done::default() });
            Some(session)
        }
        Err(error) => {
            tape.returned(id, outcome::of(&error));
            None
        }
    }
}

/// Everything at once under one session, until that is lost or the client ends.
async fn act(order: &Order, session: Session, tape: &Arc<Tape>, stop: &CancellationToken, mut rng: fastrand::Rng) {
    let over = stop.child_token();
    let tape = Arc::new(tape.part());
    let opened = Opened::new(session.clone(), tape.clone());
    let mut roles = JoinSet::new();
    roles.spawn(states(session.clone(), tape.clone(), over.clone()));
    let scene = Scene {
        session: session.clone(),
        tape: tape.clone(),
        over: over.clone(),
        lease: order.lease(),
        patience: order.patience(),
        pace: order.field.pace,
        held_long: order.field.held_long,
    };
    for role in Role::all(&order.field) {
        roles.spawn(role.play(scene.clone(), rng.fork()));
    }
    drop(scene);
    // Now and then a session ends in the middle, by its own process.
    let short = rng.f32() < 0.3;
    let span = Duration::from_millis(rng.u64(1_000..20_000));
    let closing = tokio::select! {
        _ = session.lost() => false,
        () = stop.cancelled() => true,
        () = sleep(span), if short => true,
    };
    over.cancel();
    // In the middle it is closed under those who rely on it.
    if !closing || stop.is_cancelled() {
        end(&mut roles, order.patience(), stop).await;
    }
    opened.close(order.patience(), stop).await;
    end(&mut roles, order.patience(), stop).await;
    tape.abandon();
}

/// Waits until everybody has ended, with patience until the client is told to end, and makes those end who do not.
pub(crate) async fn end(tasks: &mut JoinSet<()>, patience: Duration, stop: &CancellationToken) {
    let _ = in_time(async { while tasks.join_next().await.is_some() {} }, patience, stop).await;
    tasks.shutdown().await;
}

/// What comes of `work`, unless that takes longer than `patience`, or much longer than the client is told to live.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>, patience: Duration, stop: &CancellationToken) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = sleep(patience) => None,
        () = async {
            stop.cancelled().await;
            sleep(ENDING).await;
        } => None,
    }
}

/// Notes what the session says of itself.
async fn states(session: Session, tape: Arc<Tape>, over: CancellationToken) {
    let mut states = session.states();
    loop {
        let from = clock::now();
        let state = *states.borrow_and_update();
        let word = match state {
            SessionState::Held => history::SessionState::Held,
            SessionState::Suspect => history::SessionState::Suspect,
            SessionState::Restored => history::SessionState::Restored,
            SessionState::Lost(_) => history::SessionState::Lost,
        };
        tape.seen(from, Sight::Session { session: session.id().to_owned(), state: word });
        if matches!(state, SessionState::Lost(_)) {
            return;
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = over.cancelled() => return,
        }
    }
}
