//! Runs a graph: LLB in, snapshots and layers out.

pub mod cache;
mod causes;
pub mod event;
pub mod llb;
pub mod sandbox;
pub mod sched;
pub mod session;
pub mod snapshot;
pub mod solve;
pub mod step;
pub mod tree;
pub mod worker;
