//! Cancellation: a value that is passed down and waited for.

use tokio::sync::watch;

/// Tells everybody who has a clone that the build is to stop.
#[derive(Clone, Debug)]
pub struct CancelToken {
    sender: std::sync::Arc<watch::Sender<bool>>,
}

impl Default for CancelToken {
    fn default() -> Self {
        Self { sender: std::sync::Arc::new(watch::Sender::new(false)) }
    }
}

impl CancelToken {
    /// Stops everything.
    pub fn cancel(&self) {
        self.sender.send_replace(true);
    }

    /// Whether the build is to stop.
    pub fn is_cancelled(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns when the build is to stop.
    pub async fn cancelled(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives as long as this token.
        drop(receiver.wait_for(|stop| *stop).await);
    }
}
