//! Being a member while a command runs, or until a signal comes; and joining again after a loss.

use std::{cell::RefCell, convert::Infallible, ffi::OsString, time::Duration};

use serde_json::json;
use tenure::InstanceState;
use tenure_kv::{BootClock, Clock};
use tokio::sync::Notify;

use super::{Beater, Joining, OnLost, Plan, left};
use crate::{
    command::{
        End, exit,
        exit::Failure,
        keep::{Patience, Refused, Source, Unreleased},
        run::{self, Hold, Run, Signals, Validity},
        say::{print, say, span},
    },
    protocol::LeaseRef,
};

/// The first pause before joining again.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a beat and a change may take to the daemon.
const BEAT: Duration = Duration::from_secs(1);

/// What a command runs under that does not depend on its membership.
struct Free {
    lease: Duration,
}

impl Hold for Free {
    fn lease(&self) -> Duration {
        self.lease
    }

    fn validity(&self) -> Validity {
        let until = BootClock.now() + Duration::from_secs(365 * 24 * 3_600);
        Validity { until, over: false, why: "".into(), wanted: None }
    }

    async fn changed(&mut self) {
        std::future::pending().await
    }

    async fn confirm(&mut self, _: Duration) {}
}

/// Stays a member until the command has ended, a signal came, or the membership was lost and that is the end;
/// then leaves.
pub(super) async fn stay<S: Source<Held: Joining>>(
    source: &mut S,
    held: S::Held,
    plan: &Plan<'_>,
    signals: &mut Signals,
) -> Result<End, Failure> {
    let lease = held.lease();
    let beater = RefCell::new(Some(held.beater()));
    let mut held = Some(held);
    let ending = Notify::new();
    let outcome = {
        let beating = beat(plan, &beater);
        let draining = drain(&ending, &beater);
        let body = body(source, &mut held, plan, signals, &beater, &ending);
        tokio::select! {
            biased;
            outcome = body => outcome,
            never = beating => match never {},
            never = draining => match never {},
        }
    };
    beater.take();
    let released = match held {
        Some(held) => super::Held::release(held).await,
        None => Ok(()),
    };
    let outcome = outcome?;
    if let Err(Unreleased::Unsure(why)) = released {
        let group = &plan.request.group;
        say(&format!("warning: leaving {group} is not confirmed ({why}); the member is gone in {} at the latest", span(lease)));
    }
    Ok(End { code: outcome.code, signal: outcome.signal })
}

async fn body<S: Source<Held: Joining>>(
    source: &mut S,
    held: &mut Option<S::Held>,
    plan: &Plan<'_>,
    signals: &mut Signals,
    beater: &RefCell<Option<Beater>>,
    ending: &Notify,
) -> Result<End, Failure> {
    if plan.command.is_empty() {
        print(&format!("{}\n", plan.request.id));
        return tokio::select! {
            biased;
            signal = signals.next_that_ends() => Ok(left(signal.as_raw())),
            why = over(source, held, plan, beater) => Err(stopped(plan, &why)),
        };
    }
    let Some(member) = held.as_mut() else { return Ok(0.into()) };
    let mut environment: Vec<(&str, OsString)> =
        vec![("TENURE_GROUP", plan.request.group.clone().into()), ("TENURE_MEMBER", plan.request.id.clone().into())];
    environment.extend(super::Held::socket(member).map(|path| ("TENURE_SOCKET", path.into())));
    let mut unset: &[&str] = &[];
    if let Some((beats, ttl)) = &plan.beats {
        environment.extend(beats.environment(*ttl));
        unset = &[super::beats::NOT_FOR];
    }
    let on_lost = match plan.on_lost {
        OnLost::Kill => run::OnLost::Kill,
        OnLost::Rejoin | OnLost::Ignore => run::OnLost::Ignore,
        OnLost::Term => run::OnLost::Term,
    };
    let policy = plan.lease.policy(on_lost, member.lease());
    let without = "without being a member";
    let run = Run { command: plan.command, environment: &environment, unset, policy, without, ending: Some(ending) };
    let outcome = if plan.on_lost == OnLost::Rejoin {
        let mut free = Free { lease: member.lease() };
        tokio::select! {
            biased;
            outcome = run::run(&mut free, &run, signals) => outcome?,
            never = remain(source, held, plan, beater) => match never {},
        }
    } else {
        run::run(member, &run, signals).await?
    };
    match outcome.lost {
        Some(why) => Err(stopped(plan, &format!("{why}; the command was stopped"))),
        None => Ok(End { code: outcome.code, signal: outcome.typed.filter(|signal| run::pass_to_shell(*signal)) }),
    }
}

fn stopped(plan: &Plan<'_>, why: &str) -> Failure {
    Failure::new(exit::LOST, format!("no member of {} any more: {why}", plan.request.group))
}

/// Resolves with why the membership is lost for good.
async fn over<S: Source<Held: Joining>>(
    source: &mut S,
    held: &mut Option<S::Held>,
    plan: &Plan<'_>,
    beater: &RefCell<Option<Beater>>,
) -> String {
    if plan.on_lost == OnLost::Rejoin {
        match remain(source, held, plan, beater).await {}
    }
    match held {
        Some(member) => lost(member).await,
        None => std::future::pending().await,
    }
}

/// Resolves with why the membership is lost.
async fn lost(member: &mut impl Hold) -> String {
    loop {
        let known = member.validity();
        if known.over {
            return known.why.into_owned();
        }
        member.changed().await;
    }
}

/// Joins again whenever the membership is lost.
async fn remain<S: Source<Held: Joining>>(
    source: &mut S,
    held: &mut Option<S::Held>,
    plan: &Plan<'_>,
    beater: &RefCell<Option<Beater>>,
) -> Infallible {
    let (group, id) = (&plan.request.group, &plan.request.id);
    loop {
        if let Some(member) = held {
            let why = lost(member).await;
            say(&format!("{id} is no member of {group} any more: {why}; joining again"));
            beater.take();
            *held = None;
        }
        let mut pause = FIRST;
        let mut said = String::new();
        while held.is_none() {
            let trouble = match source.acquire(Patience::Forever).await {
                Ok(member) => {
                    beater.replace(Some(member.beater()));
                    *held = Some(member);
                    say(&format!("{id} is a member of {group} again"));
                    break;
                }
                Err(Refused::Failed(failure)) => failure.message,
                Err(Refused::Taken(who)) => who,
                Err(Refused::Busy(_)) => String::new(),
            };
            // The same trouble once.
            if said != trouble {
                say(&format!("cannot join {group} yet: {trouble}"));
                said = trouble;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }
}

/// Passes on that the command is well.
async fn beat(plan: &Plan<'_>, beater: &RefCell<Option<Beater>>) -> Infallible {
    let Some((beats, _)) = &plan.beats else { return std::future::pending().await };
    loop {
        if let Err(error) = beats.next().await {
            say(&format!("warning: the beats of the command cannot be heard: {error}"));
            return std::future::pending().await;
        }
        let to = beater.borrow().clone();
        match to {
            Some(Beater::Member(member)) => member.beat(),
            Some(Beater::Lease(client, lease)) => {
                // One that is lost is followed by another, or by the loss of the membership.
                let _ = tokio::time::timeout(BEAT, client.call("member.beat", LeaseRef { lease })).await;
            }
            None => {}
        }
    }
}

/// Has nobody send new work here once the command was asked to end.
async fn drain(ending: &Notify, beater: &RefCell<Option<Beater>>) -> Infallible {
    loop {
        ending.notified().await;
        let to = beater.borrow().clone();
        // Where that fails the command ends all the same, and the member leaves.
        match to {
            Some(Beater::Member(member)) => drop(member.set_state(InstanceState::Draining).await),
            Some(Beater::Lease(client, lease)) => {
                let params = json!({ "lease": lease, "state": InstanceState::Draining });
                drop(tokio::time::timeout(BEAT, client.call("member.update", params)).await);
            }
            None => {}
        }
    }
}
