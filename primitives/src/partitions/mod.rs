//! Sharing a number of partitions among the members of a group.
mod assign;
pub use self::assign::{Assignment, assign};
