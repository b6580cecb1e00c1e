//! Trees of records: layers on top of each other, of which those that begin alike share the beginning.
//!
//! The result of the thousandth step has a thousand layers, all but one of them those of the step
//! before. So a tree is its topmost layer and the tree below, in memory and in the database.

use std::fmt;
use std::sync::Arc;

use crate::digest::{Digest, Hasher};

/// Identity of a tree: what its layers are. Sixteen bytes of a digest; zero for the empty one.
pub type TreeId = [u8; 16];

/// Layers on top of each other. The default is the empty tree.
#[derive(Clone, Default)]
pub struct Tree(Option<Arc<Node>>);

struct Node {
    id: TreeId,
    layer: Arc<str>,
    below: Tree,
}

impl Tree {
    /// This tree with one more layer on it.
    #[must_use]
    pub fn with(&self, layer: Arc<str>) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&self.id());
        hasher.update(layer.as_bytes());
        let digest: Digest = hasher.finish();
        let id = *digest.as_bytes().first_chunk().expect("a digest has 32 bytes");
        Self(Some(Arc::new(Node { id, layer, below: self.clone() })))
    }

    /// The tree of some layers, lowest first.
    pub fn of(layers: impl IntoIterator<Item = Arc<str>>) -> Self {
        layers.into_iter().fold(Self::default(), |tree, layer| tree.with(layer))
    }

    /// Its identity.
    pub fn id(&self) -> TreeId {
        self.0.as_ref().map_or([0; 16], |node| node.id)
    }

    /// The topmost layer and the tree below it; none for the empty tree.
    pub fn top(&self) -> Option<(&Arc<str>, &Self)> {
        self.0.as_ref().map(|node| (&node.layer, &node.below))
    }

    /// This tree, the tree below its topmost layer, and so on; the empty one is not among them.
    pub fn down(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |tree| tree.top().map(|(_, below)| below))
            .take_while(|tree| tree.0.is_some())
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> Vec<Arc<str>> {
        let tops = self.down().filter_map(|tree| tree.top());
        let mut layers: Vec<_> = tops.map(|(layer, _)| Arc::clone(layer)).collect();
        layers.reverse();
        layers
    }
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Tree {}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.layers()).finish()
    }
}

impl Drop for Tree {
    /// One after the other: a long tree would need a deep stack.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = node.below.0.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_it_is_what_it_is() {
        let tree = |names: &str| Tree::of(names.split_whitespace().map(Arc::from));
        assert_eq!(tree("a b c"), tree("a b").with("c".into()));
        assert_ne!(tree("a b"), tree("b a"));
        assert_ne!(tree("ab"), tree("a b"));
        assert_eq!(tree("").id(), [0; 16]);
        assert_eq!(
            format!("{:?}", tree("a b").down().collect::<Vec<_>>()),
            r#"[["a", "b"], ["a"]]"#
        );
    }

    #[test]
    fn long_ones_fit_on_the_stack() {
        let tree = Tree::of((0..200_000).map(|_| Arc::from("a")));
        assert_eq!(tree.layers().len(), 200_000);
    }
}
