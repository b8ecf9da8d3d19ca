//! Choosing an instance of a group.
//!
//! | for | use |
//! |---|---|
//! | any instance, chosen well | [`Balancer::pick`] by a [`Strategy`] |
//! | the same instance for the same key, agreed on by all clients | [`Balancer::pick_for`] |
//! | the same instance for the same key, for as long as it lives | [`Balancer::pick_sticky`] |
//! | what is near | [`BalancerBuilder::prefer_zone`], with each of them |
//! | a balancer of the `tower` crate (feature `tower`) | `Discovered` |
//!
//! A [`Balancer`] follows a group and answers at once, without asking anybody. What it decides, and from what, are
//! functions without I/O: `table.rs` says who is available, `choose.rs` which of them, `aside.rs` for how long
//! errors keep one away.

mod aside;
mod balancer;
mod choose;
#[cfg(feature = "tower")]
mod discovered;
mod picked;
mod sticky;
mod table;

#[cfg(feature = "tower")]
pub use self::discovered::{Discovered, discover};
pub use self::{
    balancer::{Balancer, BalancerBuilder, Strategy},
    picked::Picked,
};
