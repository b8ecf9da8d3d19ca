//! Tasks that stand for election, lead, and hand over; and those that look on.

use futures::StreamExt;
use tenure::{Election, Leadership, OnLoss, Session};
use tenure_check::history::{Hold, Op, Outcome, Sight};

use super::{Actor, at, fenced::Desk};

const ELECTIONS: [&str; 2] = ["x", "y"];

pub(super) async fn work(actor: Actor, session: Session, n: usize) {
    let mut rng = actor.rng(40 + n as u64);
    let name = ELECTIONS[n % 2];
    let policy = if rng.u8(..4) == 0 { OnLoss::AtDeadline } else { OnLoss::WhenProven };
    while !actor.world.is_finishing() {
        actor.pause(&mut rng, session.lease()).await;
        let Ok(election) = session.election(name) else { return };
        let election = election.priority(rng.i32(0..3)).min_tenure(session.lease()).on_loss(policy).yields(rng.bool());
        let op = Op::Campaign { session: session.id().to_owned(), election: name.to_owned() };
        let id = actor.call(op);
        let limit = session.lease() * rng.u32(1..8);
        let campaign = async {
            if rng.u8(..5) == 0 { election.campaign_until("v", actor.sleep(limit)).await } else { election.campaign("v").await }
        };
        let won = campaign.await;
        id.returned(won.as_ref().map_or_else(super::failure, |leadership| Outcome::Ok(at(leadership.term()))));
        if let Ok(leadership) = won {
            lead(&actor, &session, name, &election, leadership, &mut rng).await;
        }
    }
}

async fn lead(actor: &Actor, session: &Session, name: &str, election: &Election, office: Leadership, rng: &mut fastrand::Rng) {
    let term = office.term().get();
    let who = session.id().to_owned();
    let under = Hold::Election { election: name.to_owned(), term };
    let mut desk = Desk::new(actor.clone(), who.clone(), under, format!("plan.{name}"));
    let look = |office: &Leadership| {
        actor.saw(Sight::Leading { election: name.to_owned(), term, yes: office.is_leader() });
    };
    for step in 0..rng.u32(2..14) {
        look(&office);
        match rng.u8(..10) {
            0..=2 => {
                let nonce = actor.nonce();
                let op = Op::Proclaim { session: who.clone(), election: name.to_owned(), term, nonce: nonce.clone() };
                drop(actor.entrust(op, office.proclaim(nonce), |revision| at(*revision)).await);
            }
            3..=5 => desk.write(rng, async |batch| office.commit(batch).await).await,
            _ => {}
        }
        look(&office);
        let most = if rng.u8(..) < 20 { session.lease() * 2 } else { session.lease() / 5 };
        let lost = tokio::select! {
            biased;
            loss = office.lost() => Some(loss),
            () = actor.pause(rng, most) => None,
        };
        if let Some(loss) = lost {
            let hold = Hold::Election { election: name.to_owned(), term };
            actor.saw(Sight::Lost { hold, loss: loss.as_str().to_owned() });
            desk.write(rng, async |batch| office.commit(batch).await).await;
            return;
        }
        if actor.world.is_finishing() && step > 1 {
            break;
        }
    }
    look(&office);
    if rng.u8(..4) == 0
        && let Ok(candidates) = election.candidates().await
        && let Some(next) = candidates.iter().find(|candidate| candidate.session != who)
    {
        // Meanwhile it may have withdrawn, or died.
        if rng.bool() {
            actor.pause(rng, session.lease()).await;
        }
        let (to, election) = (Some(next.session.clone()), name.to_owned());
        let op = Op::Transfer { session: who.clone(), election, term, to };
        drop(actor.entrust(op, office.transfer(&next.id), |revision| at(*revision)).await);
        return;
    }
    let op = Op::Resign { session: who, election: name.to_owned(), term };
    drop(actor.run(op, office.resign(), |()| Default::default()).await);
}

pub(super) async fn look_on(actor: Actor, session: Session, n: usize) {
    let name = ELECTIONS[n % 2];
    let observer = actor.world.number();
    let Ok(election) = session.election(name) else { return };
    let mut states = election.observe();
    let _last = actor.finally(Sight::Leader { observer, election: name.to_owned(), term: None, unknown: true });
    while let Some(state) = states.next().await {
        let (term, unknown) = match state {
            Ok(leader) => (leader.map(|leader| leader.term.get()), false),
            Err(_) => (None, true),
        };
        actor.saw(Sight::Leader { observer, election: name.to_owned(), term, unknown });
    }
}
