//! A balancer of the `tower` crate over the members of a group: requests follow members that join, drain and leave.
//!
//! ```text
//! cargo run --release --example tower_balancer
//! ```
//!
//! The services are functions in this process; in yours `make` would open a connection to the member's address.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use tenure::{Instance, InstanceState, MemberRecord, Session, discovery::discover};
use tower::{
    BoxError, Service, ServiceExt,
    balance::p2c::Balance,
    load::{CompleteOnResponse, PendingRequestsDiscover},
    util::BoxService,
};

/// A service that answers with the member's id.
fn service_of(member: &MemberRecord) -> BoxService<u32, String, Infallible> {
    let id = member.id.clone();
    let answer = move |_request: u32| {
        let id = id.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(id)
        }
    };
    BoxService::new(tower::service_fn(answer))
}

/// Sends `count` requests; how many each member answered.
async fn ask<S>(balance: &mut S, count: u32) -> Result<BTreeMap<String, u32>, BoxError>
where
    S: Service<u32, Response = String, Error = BoxError>,
{
    let mut answered = BTreeMap::new();
    for request in 0..count {
        // Waits for a member while there is none.
        *answered.entry(balance.ready().await?.call(request).await?).or_default() += 1;
    }
    Ok(answered)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let store = tenure_kv::open("memory:").await?;
    let session = Session::open(store.clone()).await?;
    let group = session.group("web")?;

    // Of two members drawn at random the one with fewer requests under way.
    let services = discover(&store, "web", service_of).await?;
    let mut balance = Balance::new(PendingRequestsDiscover::new(Box::pin(services), CompleteOnResponse::default()));

    let anna = group.join("anna", Instance::at("10.0.0.1:80")).await?;
    let alone = ask(&mut balance, 100).await?;
    println!("anna joins:  {alone:?}");

    let bert = group.join("bert", Instance::at("10.0.0.2:80")).await?;
    let both = ask(&mut balance, 100).await?;
    println!("bert joins:  {both:?}");

    anna.set_state(InstanceState::Draining).await?;
    // The balancer hears of it a moment later.
    let rest = loop {
        let some = ask(&mut balance, 10).await?;
        if !some.contains_key("anna") {
            break ask(&mut balance, 100).await?;
        }
    };
    println!("anna drains: {rest:?}");

    bert.leave().await?;
    anna.leave().await?;
    session.close().await?;
    if alone.len() != 1 || both.len() != 2 || rest.keys().ne(["bert"]) {
        return Err("requests did not follow the group".into());
    }
    Ok(())
}
