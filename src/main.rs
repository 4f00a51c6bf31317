//! quiver
fn main() {}
