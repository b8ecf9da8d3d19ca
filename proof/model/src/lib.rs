//! Tenure's lock protocol as a model small enough to be searched whole: sessions, ticket queues and fenced writes
//! over a store whose messages are late, lost and doubled and whose reads are old.
//!
//! `docs/architecture.md` says what the protocol is. Here every step that a client, the store or the network can
//! take next is an item of a list ([`Step`]), and the checker takes each of them in each state.
//!
//! ```text
//! cargo test -p tenure-model              # small bounds, and each rule broken on purpose
//! cargo run --release -p tenure-model     # large bounds
//! ```
//!
//! # Time
//!
//! There are no clocks in the model, only the one fact about them that the protocol rests on:
//! `validity × 1.01 < silence` (a unit test of `tenure` for every lease). A renewal's validity counts from *before
//! it is sent*, a window of silence from *after what it rests on was received*. So if the renewal was sent before the
//! window began, its validity is over before the window is, by whatever two clocks within the drift that is promised;
//! if it was sent later nothing is known. A window therefore notes the latest renewal that had been sent when it began
//! (`since`), and can only be over when that renewal's validity is. Nothing else orders the two. That lets
//! more happen than clocks do, so what holds here holds for them. A pause or a suspend is a client that takes no step
//! while others do and while its validity passes.
//!
//! # The store and the network
//!
//! Writes are applied one at a time. A request that is given up on may have been lost, may land at any later time, or may
//! have been applied and its answer lost. A copy of it may arrive at any later time. A read of a queue shows the
//! writes up to any earlier revision. A read of a session shows it as it was at any earlier time, independently of
//! what is read with it, which is more than a prefix allows.
//!
//! Tombstones are not forgotten. In `tenure` they are, after so long that no request is still on its way: a day
//! where a ticket was not answered, a second where it was. That no message outlives this is assumed, not shown.
//!
//! # What makes the search smaller
//!
//! - A request about a ticket is answered when it arrives. A client that hears of it later is one that does later
//!   what it does next; an answer that is lost is a request that is given up on and then lands.
//! - Who has to read the queue does so at once. A later read differs only when the ticket that was found has gone,
//!   and then it is read again anyway.
//! - Unless [`Config::eager`], a lease runs out only when somebody's window is over, and is renewed only when it has run
//!   out or somebody watches. That a lease has run out only keeps its holder from relying on it, so nothing unsafe
//!   is left out; what waiting and restoring look like when it does run out earlier is searched eagerly, in
//!   smaller bounds.
//! - A request that would be refused from now on is forgotten, and clients that want the same are exchanged.
//!
//! # Not in it
//!
//! Crowds, breaking of holds, epochs, and how soon anything happens. Who lives gets through
//! ([`State::converges`]) is checked by running each state to its end without further faults, once with everything that is
//! still on its way and once without.

mod bounds;
mod config;
mod converge;
mod holder;
mod protocol;
mod search;
mod state;
mod steps;
mod store;
mod symmetry;
mod tidy;
mod waiter;

pub use bounds::{Bounds, large, small};
pub use config::{Config, Mutation, Policy};
pub use protocol::{Found, Step, Wire};
pub use search::{Report, counterexample, exhaust};
pub use state::{
    Broken, CLIENTS, Call, Client, Entry, Faults, LOCKS, Lock, Op, Outcome, Seen, Session, Sight, Stage, State, Task, Ticket,
};
