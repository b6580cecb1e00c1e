//! Which network a step gets: the seam where a user-mode network of the build comes in.
//!
//! Today a step shares the caller's network or has none. A network of the build's own will be a
//! namespace that the worker holds open; its descriptor goes to init with the plan, which joins it.

use super::plan::NetworkNamespace;
use crate::worker::proto::Network;

/// The namespace of a step that asks for `network`; `build` is the descriptor index of the build's
/// own network namespace, where there is one.
pub fn namespace(network: Network, build: Option<usize>) -> NetworkNamespace {
    match (network, build) {
        (Network::None, _) => NetworkNamespace::New,
        (Network::Host, _) | (Network::Default, None) => NetworkNamespace::Shared,
        (Network::Default, Some(index)) => NetworkNamespace::Join(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode() {
        assert_eq!(namespace(Network::None, Some(3)), NetworkNamespace::New);
        assert_eq!(namespace(Network::Host, Some(3)), NetworkNamespace::Shared);
        assert_eq!(namespace(Network::Default, None), NetworkNamespace::Shared);
        assert_eq!(namespace(Network::Default, Some(3)), NetworkNamespace::Join(3));
    }
}
