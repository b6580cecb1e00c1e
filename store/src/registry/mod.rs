//! Registries: names to manifests, blobs in both directions.
//!
//! ```text
//! Reference -> Hosts::endpoints -> Client::ask -> Transport::send        mirrors in order, then the registry
//!                 (config)      (scheme, token)  (retry, redirect)
//! ```
//!
//! - Nothing that a registry says is believed: manifests and blobs are compared with digest and
//!   size, bodies and repetitions have limits.
//! - Credentials go to the host they are for, and to its token server; never along a redirect to
//!   another host.
//! - Nothing is read or connected before the first question. All runs on the caller's tokio
//!   runtime; a [`Registry`] is shared by cloning.
//!
//! Why this is not oci-client: docs/adr/0004-registry-client.md.

mod auth;
pub(crate) mod body;
mod challenge;
mod client;
pub mod config;
mod config_file;
pub mod credentials;
pub mod error;
mod manifest;
mod pull;
mod push;
mod resolve;
mod stream;
pub(crate) mod transport;
pub(crate) mod upload;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub use self::config::Hosts;
pub use self::credentials::Credentials;
pub use self::error::{ErrorKind, RegistryError};
pub use self::pull::{BlobReader, Download};
pub use self::push::{BlobSource, Delivery, PushBlob, PushImage, PushManifest};
pub use self::resolve::{Resolve, Resolved};
pub use self::stream::MIN_STREAMED_BYTES;
pub use self::transport::{NetworkSettings, Proxies, RetryPolicy};
use crate::digest::BlobId;
use crate::http::Web;

/// Called as bytes move: which blob, bytes so far, bytes in all.
pub type Progress = Arc<dyn Fn(&BlobId, u64, u64) + Send + Sync>;

/// Progress that nobody looks at.
pub fn no_progress() -> Progress {
    Arc::new(|_, _, _| {})
}

/// All registries, as one user on one machine sees them.
#[derive(Clone, Debug)]
pub struct Registry {
    client: Arc<client::Client>,
}

impl Registry {
    /// Prepares; does not read or connect.
    pub fn new(hosts: Hosts, credentials: Credentials, network: NetworkSettings) -> Self {
        let transport = Arc::new(transport::Transport::new(network));
        let auth = auth::Authenticator::new(credentials);
        Self { client: Arc::new(client::Client::new(transport, hosts, auth)) }
    }

    /// Web servers, reached over the same connections.
    pub fn web(&self) -> Web {
        Web::over(Arc::clone(&self.client.transport))
    }
}
