//! Chains of layers as records have them: those that begin alike share the beginning.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rbuild_store::records::Tree;

use crate::worker::proto::{Chain, LayerId};

/// The trees that a build met, by topmost layer: a chain that is longer by one is made from them.
#[derive(Debug, Default)]
pub(crate) struct Trees(Mutex<HashMap<LayerId, Tree>>);

impl Trees {
    /// The layers of a tree, lowest first.
    pub(super) fn chain(&self, tree: &Tree) -> Chain {
        let chain: Chain = tree.layers().into_iter().map(LayerId).collect();
        if let Some(top) = chain.last() {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(top.clone(), tree.clone());
        }
        chain
    }

    /// The tree of some layers.
    pub(super) fn of(&self, chain: &[LayerId]) -> Tree {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut beginnings = (0..=chain.len()).rev().map(|length| chain.split_at(length));
        let found = beginnings.find_map(|(below, above)| match below.last() {
            Some(top) => known.get(top).filter(|it| has(it, below)).map(|it| (it.clone(), above)),
            None => Some((Tree::default(), above)),
        });
        let (mut tree, above) = found.unwrap_or_default();
        for layer in above {
            tree = tree.with(layer.0.clone());
            known.insert(layer.clone(), tree.clone());
        }
        tree
    }
}

/// Whether a tree has exactly these layers. Layers of images are on top of different ones.
fn has(tree: &Tree, chain: &[LayerId]) -> bool {
    let tops = tree.down().filter_map(Tree::top).map(|(layer, _)| layer);
    tops.eq(chain.iter().rev().map(|layer| &layer.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let trees = Trees::default();
        for names in ["", "a", "a b c", "a b c d", "x b c d", "b", "c d"] {
            let chain: Chain = names.split_whitespace().map(|it| LayerId(it.into())).collect();
            let tree = trees.of(&chain);
            assert_eq!(tree, Tree::of(chain.iter().map(|it| it.0.clone())), "{names}");
            assert_eq!(trees.chain(&tree), chain);
        }
    }
}
