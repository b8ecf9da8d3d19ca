//! Stories about Tenure that run: what the programs in this directory are made of.

pub mod failover;
pub mod leader_failover;
pub mod partitions;
pub mod service_discovery;
pub mod singleton_job;
mod stage;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
