//! `tenure top`: locks, elections and groups as they are now, on the whole terminal.

mod feed;
mod model;
mod streams;
mod told;
mod view;

use std::{io::IsTerminal, pin::pin, time::Duration};

use crossterm::event::{Event, EventStream};
use futures::{FutureExt, StreamExt, future::LocalBoxFuture};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use self::model::{Act, Model};
use super::{
    End, Socket,
    daemon::Daemon,
    exit::{self, Failure},
    keep::{interrupted, interruptible},
    output::Cell,
    run::Signals,
    time,
};
use crate::protocol::LockBreak;

/// Watch locks, elections, groups and changes of leaders on the whole terminal
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// How often to look; at what is not on the screen four times less often
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "500ms")]
    interval: Duration,

    #[command(flatten)]
    socket: Socket,
}

const MORE: &str = "\
Examples:
  tenure top
  tenure top --interval 2s

Keys: 1 to 4, Tab and the arrows choose; / filters by name, Esc ends that; b breaks the hold of the lock that is
chosen, after a question that names the lock, its holder and the token; q and Ctrl-C end.

What becomes of what is on the screen is told, and shown at once; what is new is found by looking.
How much is left of a lease is known of the sessions of this daemon. Changes of leaders are those
since `tenure top` was started; of the first 64 elections they are told. Where there is no terminal use
`tenure locks ls`, `tenure watch` or `tenure members`.

Exit code: 0; 64 no terminal; 125 Tenure failed: no daemon; 128 + the signal that ended it.
";

/// News that wait to be shown.
const UNREAD: usize = 256;
/// The screen is drawn no more often.
const FRAME: Duration = Duration::from_millis(20);

/// A break that is under way: for people, and what came of it.
type Breaking<'a> = LocalBoxFuture<'a, String>;

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::usage("there is no terminal to draw on; use `tenure locks ls`, or `tenure watch`"));
    }
    let interval = args.interval.max(Duration::from_millis(50));
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    let daemon = interruptible(&mut signals, Daemon::at(&args.socket)).await?;
    let terminal = ratatui::try_init();
    let mut terminal = terminal.map_err(|error| Failure::failed(format_args!("cannot draw on this terminal: {error}")))?;
    let end = show(&mut terminal, &daemon, interval, &mut signals).await;
    ratatui::restore();
    match end? {
        0 => Ok(0.into()),
        signal => interrupted(signal),
    }
}

/// Draws until a key or a signal ends it; returns the signal, or 0.
async fn show(
    terminal: &mut ratatui::DefaultTerminal,
    daemon: &Daemon,
    interval: Duration,
    signals: &mut Signals,
) -> Result<i32, Failure> {
    let (sender, mut news) = mpsc::channel(UNREAD);
    let (shown, wanted) = watch::channel(Vec::new());
    let mut feed = pin!(feed::run(daemon, interval, wanted, sender));
    let mut typed = EventStream::new();
    let mut model = Model::new(Cell::shown_in_colour());
    let mut breaking: Option<Breaking<'_>> = None;
    let mut last = Instant::now();
    let mut due = Some(last);
    loop {
        if due.is_some_and(|due| due <= Instant::now()) {
            let drawn = terminal.draw(|frame| view::draw(frame, &model));
            let drawn = drawn.map_err(|error| Failure::failed(format_args!("cannot draw on this terminal: {error}")))?;
            model.resize(drawn.area.height.saturating_sub(view::AROUND).into());
            due = None;
            last = Instant::now();
        }
        let things = model.shown();
        shown.send_if_modified(|shown| {
            let changed = *shown != things;
            *shown = things;
            changed
        });
        let broken = async {
            match &mut breaking {
                Some(breaking) => breaking.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            signal = signals.next_that_ends() => return Ok(signal.as_raw()),
            said = broken => {
                breaking = None;
                model.note(said);
            }
            event = typed.next() => match event {
                Some(Ok(Event::Key(key))) => match model.key(key) {
                    Act::Nothing => {}
                    Act::Quit => return Ok(0),
                    Act::Interrupt => return Ok(nix::sys::signal::Signal::SIGINT as i32),
                    Act::Break { name, fence } => breaking = Some(break_hold(daemon, name, fence).boxed_local()),
                },
                // Whatever else there is, a new size for one, is drawn.
                Some(Ok(_)) => {}
                // The terminal hung up.
                Some(Err(_)) | None => return Ok(nix::sys::signal::Signal::SIGHUP as i32),
            },
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
            Some(first) = news.recv() => {
                let rest = std::iter::from_fn(|| news.try_recv().ok());
                for news in std::iter::once(first).chain(rest) {
                    model.take(news, std::time::SystemTime::now());
                }
            }
            never = &mut feed => match never {},
        }
        due = due.or(Some(last + FRAME));
    }
}

async fn break_hold(daemon: &Daemon, name: String, fence: u64) -> String {
    let broken: Result<Value, Failure> = daemon.call("lock.break", LockBreak { name: name.clone(), fence }).await;
    match broken {
        Ok(_) => format!("the hold of {name} with token {fence} is broken"),
        Err(Failure { code: exit::CONFLICT, .. }) => {
            format!("{name} is not held with token {fence} any more, and was left alone")
        }
        Err(failure) => format!("{name} was not broken: {}", failure.message),
    }
}
