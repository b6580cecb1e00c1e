//! Local contexts: which of their paths a build uses, and what their ignore files leave out.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_solver::llb::Meta;
use rbuild_solver::llb::op::{Op, SourceOp};
use rbuild_store::pattern::parse_ignore_file;

use crate::gateway::{Gateway, GatewayError, GatewayErrorKind};
use crate::lower::paths;

/// Name of the main context among local sources.
pub(crate) const MAIN: &str = "context";

/// Name of the directory of the Dockerfile among local sources.
const DOCKERFILE_DIR: &str = "dockerfile";

/// Name of the ignore file of a context.
const IGNORE_FILE: &str = ".dockerignore";

/// Largest ignore file that is read, in bytes.
const MAX_IGNORE_BYTES: usize = 4 << 20;

/// Most paths that are asked for one by one; where more are used, all are.
const MAX_FOLLOWED_PATHS: usize = 1000;

/// Paths that are used of a tree, from its root.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct UsedPaths {
    list: BTreeSet<String>,
}

impl UsedPaths {
    /// Marks a path or pattern as used.
    pub(crate) fn add(&mut self, path: &str) {
        self.list.insert(paths::rooted(path));
    }

    /// Marks what another set has.
    pub(crate) fn add_all(&mut self, other: &Self) {
        self.list.extend(other.list.iter().cloned());
    }

    /// The paths, relative to the root; none if all of the tree is used.
    fn followed(&self) -> Option<Vec<&str>> {
        let is_all =
            self.list.is_empty() || self.list.contains("/") || self.list.len() > MAX_FOLLOWED_PATHS;
        (!is_all).then(|| self.list.iter().map(|it| it.trim_start_matches('/')).collect())
    }
}

/// A local context.
#[derive(Clone, Debug)]
pub(crate) struct LocalContext {
    /// Name of the source: `local://NAME`.
    pub(crate) source: String,
    /// What progress shows.
    pub(crate) shown: String,
    /// Patterns of the ignore file.
    pub(crate) excludes: Vec<String>,
    /// Indices of the sets of paths that are used.
    pub(crate) paths: Vec<usize>,
}

impl LocalContext {
    /// The source operation.
    pub(crate) fn to_op(&self, sets: &[UsedPaths]) -> (Op, Meta) {
        let mut used = UsedPaths::default();
        for &index in &self.paths {
            match &sets[index] {
                // A set without paths means a use that does not say of what.
                set if set.list.is_empty() => used.add("/"),
                set => used.add_all(set),
            }
        }
        let mut attrs = BTreeMap::new();
        if !self.excludes.is_empty() {
            attrs.insert("local.excludepatterns".to_owned(), json(&self.excludes));
        }
        if let Some(followed) = used.followed() {
            attrs.insert("local.followpaths".to_owned(), json(&followed));
        }
        let identifier = format!("local://{}", self.source);
        let meta = Meta { name: self.shown.clone(), ..Meta::default() };
        (Op::Source(SourceOp { identifier, attrs, platform: None }), meta)
    }
}

fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).expect("a list of strings is JSON")
}

/// Patterns of the ignore file of the main context: `<Dockerfile>.dockerignore` beside the
/// Dockerfile if there is one, else `.dockerignore` in the context.
///
/// # Errors
///
/// If it cannot be read, with its name.
pub(crate) fn main_excludes(
    gateway: &dyn Gateway,
    dockerfile: &str,
) -> Result<Vec<String>, GatewayError> {
    let own = format!("{dockerfile}{IGNORE_FILE}");
    if let Some(bytes) = gateway.read_context_file(DOCKERFILE_DIR, &own)? {
        return parsed(&bytes, &own);
    }
    excludes_of(gateway, MAIN)
}

/// Patterns of the ignore file in the local context `source`.
///
/// # Errors
///
/// If it cannot be read, with its name.
pub(crate) fn excludes_of(
    gateway: &dyn Gateway,
    source: &str,
) -> Result<Vec<String>, GatewayError> {
    match gateway.read_context_file(source, IGNORE_FILE)? {
        Some(bytes) => parsed(&bytes, IGNORE_FILE),
        None => Ok(Vec::new()),
    }
}

fn parsed(bytes: &[u8], name: &str) -> Result<Vec<String>, GatewayError> {
    if bytes.len() <= MAX_IGNORE_BYTES {
        return Ok(parse_ignore_file(bytes));
    }
    let size = bytes.len();
    Err(GatewayError {
        kind: GatewayErrorKind::Host,
        text: format!("{name} has {size} bytes, more than the {MAX_IGNORE_BYTES} that are read"),
        hint: None,
    })
}
