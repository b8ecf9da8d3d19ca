//! The command `tenure-check`.

fn main() {}
