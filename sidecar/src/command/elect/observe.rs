//! Who leads, printed.

use std::time::Duration;

use serde::Serialize;

use super::{socket, store};
use crate::{
    command::{
        End,
        exit::{self, Failure},
        keep::Place,
        output::{Cell, Column, Format, Printer, value_of},
        say::{say, span},
    },
    protocol::LeaderView,
};

/// The pause before a session that was lost is opened anew.
const AGAIN: Duration = Duration::from_millis(200);

/// What is seen of an election.
#[derive(Debug)]
pub(super) enum Sight {
    Leader(Option<LeaderView>),
    /// What was told may be over; why.
    Gap(String),
}

/// The same for programs.
#[derive(Debug, Serialize)]
struct Told<'a> {
    election: &'a str,
    leader: &'a Option<LeaderView>,
}

const COLUMNS: [Column; 6] = [
    Column { head: "TERM", width: 8, right: true },
    Column { head: "LEADER", width: 16, right: false },
    Column { head: "HOST", width: 16, right: false },
    Column { head: "PID", width: 8, right: true },
    Column { head: "FOR", width: 8, right: true },
    Column { head: "VALUE", width: 0, right: false },
];

/// Prints who leads: once, or every state.
pub(super) async fn run(name: &str, place: &Place, format: Format, observe: bool) -> Result<End, Failure> {
    let mut printer = Printer::new(format, &COLUMNS);
    if !observe {
        let leader = match &place.store {
            Some(url) => {
                let looker = store::Looker::open(url, name).await?;
                let leader = looker.leader().await;
                looker.close().await;
                leader?
            }
            None => socket::Looker::open(place.socket.path(), name).await?.leader().await?,
        };
        let Some(leader) = leader else {
            printer.value(&serde_json::Value::Null);
            say(&format!("nobody leads {name}"));
            return Ok(exit::NOT_THERE.into());
        };
        printer.event(&leader, row(&leader));
        return Ok(0.into());
    }
    let mut tell = |sight| match sight {
        Sight::Leader(leader) => {
            let cells = leader.as_ref().map_or_else(|| vec!["-".into(), Cell::plain("nobody")], row);
            printer.event(&Told { election: name, leader: &leader }, cells);
        }
        Sight::Gap(why) => say(&format!("{why}; what was printed last may be over")),
    };
    match &place.store {
        Some(url) => loop {
            let looker = store::Looker::open(url, name).await?;
            looker.observe(&mut tell).await;
            tell(Sight::Gap("the session was lost".to_owned()));
            tokio::time::sleep(AGAIN).await;
        },
        None => {
            let looker = socket::Looker::open(place.socket.path(), name).await?;
            looker.observe(&mut tell).await.map(|()| 0.into())
        }
    }
}

fn row(leader: &LeaderView) -> Vec<Cell> {
    let since = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(leader.since_ms));
    let age = since.and_then(|since| since.elapsed().ok()).map(span).unwrap_or_default();
    vec![
        Cell::plain(leader.fence),
        Cell::plain(leader.label.as_deref().unwrap_or("-")),
        Cell::plain(&leader.host),
        Cell::plain(leader.pid),
        Cell::plain(age),
        Cell::plain(value_of(leader.value.as_deref(), leader.value_b64.as_deref())),
    ]
}
