//! tenured
fn main() {}
