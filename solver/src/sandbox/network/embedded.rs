//! The network of a step without any helper: a namespace, rules in it, and a thread of the worker.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use super::engine::{Engine, Host};
use super::namespace::{HostRoutes, Namespace};
use super::policy::{Allowed, NameServers};
use super::routes::Route;
use super::{Options, Refused, UserNetwork};

/// An address that is everywhere the same: whether it has a route tells whether there is IPv6.
const SOME_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1);

/// See the module.
#[derive(Debug)]
pub(super) struct Embedded {
    namespace: OwnedFd,
    control: UnixStream,
    host: Arc<Host>,
    resolv_conf: String,
}

impl Embedded {
    /// Makes one, on a host with this `/etc/resolv.conf`.
    ///
    /// # Errors
    ///
    /// What the host lacks or refuses.
    pub(super) fn start(resolv_conf: &str, options: &Options) -> Result<Self, Refused> {
        let refused = |error: &dyn std::error::Error| Refused(crate::causes::chain(error));
        let index = |name: &str| nix::net::if_::if_nametoindex(name).unwrap_or(0);
        let servers = NameServers::new(resolv_conf, index);
        let resolv_conf = servers.resolv_conf(resolv_conf);
        let ipv6 = HostRoutes::open().and_then(|it| it.route(SOME_V6.into()));
        let ipv6 = ipv6.is_ok_and(|it| it == Route::Outside);
        let namespace = Namespace::new(ipv6).map_err(|error| refused(&error))?;
        let handle = namespace.handle.try_clone().map_err(|error| refused(&error))?;
        let destinations = options.allow.clone();
        let allowed = Allowed { servers, destinations, host_gateway: options.host_gateway };
        let host = Arc::new(Host { allowed, refused: Mutex::default() });
        let (control, other) = UnixStream::pair().map_err(|error| refused(&error))?;
        let engine = Engine::new(namespace, other.into(), Arc::clone(&host))
            .map_err(|error| refused(&error))?;
        std::thread::Builder::new()
            .name("network".to_owned())
            // A broken event queue: the step sees a network that does not answer.
            .spawn(move || drop(engine.run()))
            .map_err(|error| refused(&error))?;
        Ok(Self { namespace: handle, control, host, resolv_conf })
    }
}

impl UserNetwork for Embedded {
    fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    fn resolv_conf(&self) -> &str {
        &self.resolv_conf
    }

    fn forget(&mut self) -> bool {
        let mut byte = [1];
        self.control.write_all(&byte).and_then(|()| self.control.read_exact(&mut byte)).is_ok()
    }

    fn refused(&self) -> Vec<SocketAddr> {
        let mut refused = self.host.refused.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *refused).into_iter().collect()
    }
}
