//! Which network a step gets.
//!
//! By default one of its own: a namespace in which packets end in a process of the user, which
//! opens ordinary sockets for them. There are two kinds, behind [`UserNetwork`]: `embedded`, which
//! needs neither a program nor a device, and a helper program on a TAP device. A namespace is made
//! when the first step needs one, and used again by later ones; steps that run at the same time
//! have different ones, so that they do not meet on the loopback.
//!
//! Pure: [`netlink`], [`rules`], [`routes`], [`packet`], [`policy`].

mod embedded;
mod engine;
mod namespace;
mod netlink;
mod packet;
mod policy;
mod routes;
mod rules;
mod splice;
mod tap;
mod tcp;
mod udp;

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::plan::NetworkNamespace;
use crate::worker::proto::Network;

/// `--network-backend`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Backend {
    /// The first that works; where none does, the caller's network.
    #[default]
    Auto,
    /// The one that is built in.
    Embedded,
    /// `pasta`, which must be installed.
    Pasta,
    /// `slirp4netns`, which must be installed.
    Slirp4netns,
}

/// What a build says about the network of its steps.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Options {
    /// Who makes it.
    pub backend: Backend,
    /// Destinations that steps reach even if they are addresses of the host: its proxies, for
    /// example. Not for a helper program.
    pub allow: Vec<SocketAddr>,
    /// Whether steps reach this host's loopback under the name that `--add-host NAME:host-gateway`
    /// gives it. Not for a helper program.
    pub host_gateway: bool,
}

/// The address in `--add-host NAME:host-gateway`, which is found out where the step runs.
pub const HOST_GATEWAY: &str = "host-gateway";

/// Why a kind of network cannot be had.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// A network of steps' own.
trait UserNetwork: fmt::Debug + Send {
    /// The namespace that a step joins.
    fn namespace(&self) -> BorrowedFd<'_>;

    /// `/etc/resolv.conf` of a step, unless the build has its own.
    fn resolv_conf(&self) -> &str;

    /// Makes it as new for the next step; false if that cannot be.
    fn forget(&mut self) -> bool;

    /// Where the step wanted to go and was not let, since last asked.
    fn refused(&self) -> Vec<SocketAddr>;
}

/// The networks of a build's steps.
#[derive(Debug)]
pub struct Networks {
    options: Options,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spare: Vec<Box<dyn UserNetwork>>,
    /// Why there is none, once that is known.
    refused: Option<Refused>,
    /// Whether the steps' person knows.
    told: bool,
}

/// The network of one step, while it runs.
#[derive(Debug)]
pub struct Lease<'a> {
    owner: &'a Networks,
    kind: Kind,
    reusable: bool,
}

#[derive(Debug)]
enum Kind {
    Shared { why: Option<Refused> },
    None,
    Own(Box<dyn UserNetwork>),
}

impl Networks {
    /// Nothing is made yet.
    pub fn new(options: Options) -> Self {
        Self { options, state: Mutex::default() }
    }

    /// Whether nobody has asked for a network by name.
    pub fn is_a_matter_of_choice(&self) -> bool {
        self.options.backend == Backend::Auto
    }

    /// The network of a step that asks for `network`. A step with `all` capabilities can change it,
    /// and so nobody has it afterwards.
    ///
    /// # Errors
    ///
    /// If the backend that was asked for by name cannot be had.
    pub fn lease(&self, network: Network, all: bool) -> Result<Lease<'_>, Refused> {
        let kind = match network {
            Network::None => Kind::None,
            Network::Host => Kind::Shared { why: None },
            Network::Default => self.own()?,
        };
        Ok(Lease { owner: self, kind, reusable: !all })
    }

    /// Whether a step can have a network of its own, else why not, in words.
    ///
    /// # Errors
    ///
    /// What the backends say.
    pub fn works(&self) -> Result<(), String> {
        self.start().map(drop).map_err(|Refused(why)| why)
    }

    fn own(&self) -> Result<Kind, Refused> {
        let known = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(network) = state.spare.pop() {
                return Ok(Kind::Own(network));
            }
            state.refused.clone()
        };
        match known.map_or_else(|| self.start(), Err) {
            Ok(network) => Ok(Kind::Own(network)),
            Err(why) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.refused = Some(why.clone());
                drop(state);
                self.without(why)
            }
        }
    }

    fn without(&self, why: Refused) -> Result<Kind, Refused> {
        match self.options.backend {
            Backend::Auto => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let told = std::mem::replace(&mut state.told, true);
                Ok(Kind::Shared { why: (!told).then_some(why) })
            }
            Backend::Embedded | Backend::Pasta | Backend::Slirp4netns => Err(why),
        }
    }

    fn start(&self) -> Result<Box<dyn UserNetwork>, Refused> {
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let embedded = || -> Result<Box<dyn UserNetwork>, Refused> {
            let network = embedded::Embedded::start(&resolv_conf, &self.options)
                .map_err(|Refused(why)| Refused(format!("embedded: {why}")))?;
            Ok(Box::new(network))
        };
        let helper = |program: tap::Program| -> Result<Box<dyn UserNetwork>, Refused> {
            let network = tap::Tap::start(program, &resolv_conf)
                .map_err(|Refused(why)| Refused(format!("{}: {why}", program.name())))?;
            Ok(Box::new(network))
        };
        match self.options.backend {
            Backend::Embedded => embedded(),
            Backend::Pasta => helper(tap::Program::Pasta),
            Backend::Slirp4netns => helper(tap::Program::Slirp4netns),
            Backend::Auto => embedded().or_else(|Refused(first)| {
                helper(tap::Program::Pasta).or_else(|Refused(second)| {
                    helper(tap::Program::Slirp4netns)
                        .map_err(|Refused(third)| Refused(format!("{first}; {second}; {third}")))
                })
            }),
        }
    }
}

impl Lease<'_> {
    /// How init gets there; a namespace to join is added to the descriptors that it is `passed`.
    pub fn namespace<'b>(&'b self, passed: &mut Vec<BorrowedFd<'b>>) -> NetworkNamespace {
        match &self.kind {
            Kind::Shared { .. } => NetworkNamespace::Shared,
            Kind::None => NetworkNamespace::New,
            Kind::Own(network) => {
                passed.push(network.namespace());
                NetworkNamespace::Join(passed.len() - 1)
            }
        }
    }

    /// Whether the step does not share the caller's network.
    pub fn is_own(&self) -> bool {
        !matches!(self.kind, Kind::Shared { .. })
    }

    /// `/etc/resolv.conf` of the step, where the network says what it is.
    pub fn resolv_conf(&self) -> Option<&str> {
        match &self.kind {
            Kind::Own(network) => Some(network.resolv_conf()),
            Kind::Shared { .. } | Kind::None => None,
        }
    }

    /// The address that stands for this host in the step.
    pub fn host_gateway(&self) -> &'static str {
        match &self.kind {
            Kind::Own(_) => policy::GATEWAY_TEXT,
            Kind::Shared { .. } | Kind::None => "127.0.0.1",
        }
    }

    /// Gives it back before any step had it; tells whether a step will not share the caller's.
    pub fn unused(self) -> bool {
        if matches!(self.kind, Kind::Shared { why: Some(_) }) {
            // The first step that has it tells why.
            self.owner.state.lock().unwrap_or_else(PoisonError::into_inner).told = false;
        }
        self.is_own()
    }

    /// What a person should know about the network that the step had: lines without an end.
    pub fn notes(&self) -> Vec<String> {
        match &self.kind {
            Kind::None | Kind::Shared { why: None } => Vec::new(),
            Kind::Shared { why: Some(Refused(why)) } => {
                vec![format!("RUN shares the network of the caller: no other can be had ({why})")]
            }
            Kind::Own(network) => told(&network.refused()),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Kind::Own(mut network) = std::mem::replace(&mut self.kind, Kind::None)
            && self.reusable
            && network.forget()
        {
            let mut state = self.owner.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.spare.push(network);
        }
    }
}

fn told(refused: &[SocketAddr]) -> Vec<String> {
    let Some(first) = refused.first() else {
        return Vec::new();
    };
    let mut text = format!("RUN was kept from reaching {first}");
    for address in &refused[1..] {
        let _ = write!(text, ", {address}");
    }
    text.push_str(
        ": addresses of this machine and of its cloud's services are not reachable from a step \
         (`--network=host` would allow it)",
    );
    vec![text]
}

/// Whether a path is a device that this process can open, as helpers need it.
fn opens(device: &Path) -> Result<(), Refused> {
    let open = std::fs::File::options().read(true).write(true).open(device);
    open.map(drop).map_err(|error| Refused(format!("cannot open `{}`: {error}", device.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_network_of_its_own() {
        let networks = Networks::new(Options::default());
        let mut passed = Vec::new();
        let none = networks.lease(Network::None, false).unwrap();
        assert_eq!(none.namespace(&mut passed), NetworkNamespace::New);
        assert!(none.is_own() && none.notes().is_empty());
        let host = networks.lease(Network::Host, false).unwrap();
        assert_eq!(host.namespace(&mut passed), NetworkNamespace::Shared);
        assert!(!host.is_own() && host.notes().is_empty() && passed.is_empty());
    }

    #[test]
    fn what_cannot_be_had_is_told_or_an_error() {
        let refused = || {
            let refused = Some(Refused("x".into()));
            Mutex::new(State { refused, ..State::default() })
        };
        let auto = Networks { options: Options::default(), state: refused() };
        // What no step had is not told to anybody yet.
        assert!(!auto.lease(Network::Default, false).unwrap().unused());
        let lease = auto.lease(Network::Default, false).unwrap();
        assert!(!lease.is_own());
        assert_eq!(
            lease.notes(),
            ["RUN shares the network of the caller: no other can be had (x)"]
        );
        drop(lease);
        // Once is enough.
        assert!(auto.lease(Network::Default, false).unwrap().notes().is_empty());
        let options = Options { backend: Backend::Embedded, ..Options::default() };
        let named = Networks { options, state: refused() };
        assert_eq!(named.lease(Network::Default, false).unwrap_err(), Refused("x".into()));
    }
}
