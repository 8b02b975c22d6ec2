//! The on-device command.
fn main() {}
