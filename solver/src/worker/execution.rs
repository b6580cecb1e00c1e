//! A step that runs in the worker, as the build process sees it.

use std::sync::mpsc;

use tokio::sync::oneshot;

use super::client::{Outgoing, lost, unexpected};
use super::proto::{Answer, Committed, ExitStatus, Failure, Request, Usage};
use super::serve::Numbered;

/// What a step's process did.
#[derive(Clone, Debug)]
pub struct Exited {
    /// How it ended.
    pub status: ExitStatus,
    /// What it took.
    pub usage: Usage,
    /// The layers that were kept; none unless it ended with exit code 0.
    pub layers: Vec<Committed>,
    /// What a person should know beside. Lines without an end.
    pub notes: Vec<String>,
}

/// A step that runs. Dropping it cancels the step.
#[derive(Debug)]
pub struct Execution {
    pub(super) number: u64,
    pub(super) requests: Option<mpsc::Sender<Outgoing>>,
    pub(super) answer: oneshot::Receiver<Answer>,
}

impl Execution {
    /// Ends the step and everything it started. Its end is still to be waited for.
    pub fn cancel(&self) {
        if let Some(requests) = &self.requests {
            let body = Request::Cancel { number: self.number };
            let message = Numbered { number: 0, body };
            // A worker that is gone has taken the step with it.
            drop(requests.send(Outgoing { message, fds: Vec::new() }));
        }
    }

    /// Waits for the end. May be called again if it was not waited for to the end.
    ///
    /// # Errors
    ///
    /// If the process could not be started, or its result not be kept.
    pub async fn wait(&mut self) -> Result<Exited, Failure> {
        let answer = (&mut self.answer).await.map_err(|_| lost());
        self.requests = None;
        let answer = answer?;
        if let Answer::Failed(failure) = answer {
            return Err(failure);
        }
        let Answer::Exited { status, usage, layers, notes } = answer else {
            return Err(unexpected(&answer));
        };
        Ok(Exited { status, usage, layers, notes })
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.cancel();
    }
}
