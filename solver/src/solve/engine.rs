//! Who works on files: this process, or the worker inside the namespace.

use std::os::fd::OwnedFd;

use crate::session::BoxFuture;
use crate::worker::proto::{Answer, Failure, Request};

/// Takes requests of [`crate::worker::proto`].
///
/// Two implementations: the worker's handle, which starts the worker with the first request, and
/// one that does file work in this process, for builds without a process to run.
pub trait Engine: Send + Sync {
    /// Carries out `request`; the descriptors are those that it names by index.
    fn call(&self, request: Request, fds: Vec<OwnedFd>) -> BoxFuture<'_, Result<Answer, Failure>>;

    /// As [`Self::call`] for a process, which is killed when `cancel` comes; its answer comes all
    /// the same.
    fn call_until<'a>(
        &'a self,
        request: Request,
        fds: Vec<OwnedFd>,
        cancel: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Result<Answer, Failure>>;
}
