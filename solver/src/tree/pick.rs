//! Which paths a copy takes: wildcards of its source, include and exclude patterns.
//!
//! The copy itself and the digest of what it reads both ask here, so they cannot disagree.

use rbuild_store::pattern::{Glob, Matched, PatternError, PatternSet, clean, has_wildcards};

use super::listing::join;
use super::resolve::{ResolveError, Stat, Tree, resolve};
use super::view::{Node, View};

/// Why a source cannot be expanded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PickError {
    /// A wildcard or filter is not a pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The path leads nowhere.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The fixed part of a pattern does not exist.
    #[error("lstat /{}: no such file or directory", String::from_utf8_lossy(path))]
    NotFound {
        /// The path.
        path: Vec<u8>,
    },
}

/// A path as a copy's source or destination has it: absolute, cleaned, but with the `/` or `/.`
/// that it ended in.
pub fn clean_operand(path: &str) -> String {
    let mut cleaned = clean(&format!("/{path}"));
    if path.ends_with("/.") {
        cleaned.push_str(if cleaned == "/" { "." } else { "/." });
    } else if path.ends_with('/') && cleaned != "/" {
        cleaned.push('/');
    }
    cleaned
}

/// The canonical path that a source leads to: links on the way are followed, the last component
/// only if `follow` is set.
///
/// # Errors
///
/// If links lead in circles or the path goes through something that is no directory.
pub fn source_path(tree: &impl Tree, source: &str, follow: bool) -> Result<Vec<u8>, ResolveError> {
    // Cleaned first: `link/..` is the directory of the link.
    resolve(tree, clean(&format!("/{source}")).as_bytes(), follow)
}

/// The paths that a source with wildcards stands for, in the order of a walk; a source without any
/// stands for itself.
///
/// A directory that matches is not looked into.
///
/// # Errors
///
/// If the part before the first wildcard does not exist, or the pattern is none.
pub fn expand(tree: &impl Tree, source: &str, follow: bool) -> Result<Vec<String>, PickError> {
    let cleaned = clean(source);
    let fixed = cleaned.split('/').take_while(|part| !has_wildcards(part)).count();
    let parts: Vec<&str> = cleaned.split('/').collect();
    if fixed == parts.len() {
        return Ok(vec![cleaned]);
    }
    let top = source_path(tree, &parts[..fixed].join("/"), follow)?;
    if !top.is_empty() && tree.stat(&top).is_none() {
        return Err(PickError::NotFound { path: top });
    }
    let pattern = &parts[fixed..];
    // A pattern that is none matches nothing, as in Go's matcher when its error is dropped.
    let Ok(whole) = Glob::new(&pattern.join("/")) else { return Ok(Vec::new()) };
    // Without classes, which may match a `/`, each component can be held against its part.
    let by_part: Option<Vec<Glob>> = if pattern.iter().any(|part| part.contains('[')) {
        None
    } else {
        pattern.iter().map(|part| Glob::new(part).ok()).collect()
    };
    let mut found = Vec::new();
    // Names still to be looked at, last first: path in the tree, path below the top, depth.
    let mut stack: Vec<(Vec<u8>, Vec<u8>, usize)> = Vec::new();
    push_names(tree, &top, b"", 0, &mut stack);
    while let Some((path, below, depth)) = stack.pop() {
        if let Some(by_part) = &by_part {
            let name = super::listing::split(&below).map_or(&below[..], |(_, name)| name);
            if !by_part.get(depth).is_some_and(|glob| glob.matches(name)) {
                continue;
            }
        }
        if whole.matches(&below) {
            found.push(String::from_utf8_lossy(&path).into_owned());
        } else if tree.stat(&path) == Some(Stat::Dir) {
            push_names(tree, &path, &below, depth + 1, &mut stack);
        }
    }
    Ok(found)
}

fn push_names(
    tree: &impl Tree,
    dir: &[u8],
    below: &[u8],
    depth: usize,
    stack: &mut Vec<(Vec<u8>, Vec<u8>, usize)>,
) {
    for name in tree.names(dir).into_iter().rev() {
        stack.push((join(dir, &name), join(below, &name), depth));
    }
}

/// Include and exclude patterns, compiled. They concern paths below the source.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Option<PatternSet>,
    exclude: Option<PatternSet>,
}

/// What a directory's result means for what is in it.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    include: Matched,
    exclude: Matched,
}

impl Filter {
    /// Compiles patterns; an empty list filters nothing.
    ///
    /// # Errors
    ///
    /// If one is not a pattern.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, PatternError> {
        let compile = |patterns: &[S]| match patterns {
            [] => Ok(None),
            _ => PatternSet::new(patterns).map(Some),
        };
        Ok(Self { include: compile(include)?, exclude: compile(exclude)? })
    }

    /// Whether a path that is no directory is taken.
    pub fn takes(&self, path: &[u8], parent: &Inherited) -> bool {
        self.include.as_ref().is_none_or(|set| set.matches_in(path, &parent.include))
            && !self.exclude.as_ref().is_some_and(|set| set.matches_in(path, &parent.exclude))
    }

    /// What to do with a directory.
    pub fn takes_dir(&self, path: &[u8], parent: &Inherited) -> DirDecision {
        let mut decision =
            DirDecision { taken: true, entered: true, inherited: Inherited::default() };
        if let Some(set) = &self.include {
            let (matched, inherited) = set.matches_dir(path, &parent.include);
            decision.inherited.include = inherited;
            if !matched {
                decision.taken = false;
                decision.entered &= set.may_match_below(path);
            }
        }
        if let Some(set) = &self.exclude {
            let (matched, inherited) = set.matches_dir(path, &parent.exclude);
            decision.inherited.exclude = inherited;
            if matched {
                decision.taken = false;
                decision.entered &= set.may_except_below(path);
            }
        }
        decision
    }
}

/// What to do with a directory.
#[derive(Clone, Debug)]
pub struct DirDecision {
    /// Whether it is taken for itself. If not, it is taken once something in it is.
    pub taken: bool,
    /// Whether something in it may be taken.
    pub entered: bool,
    /// What its result means for what is in it.
    pub inherited: Inherited,
}

/// A directory of the walk that is looked into.
struct Frame<'v> {
    rest: std::vec::IntoIter<Node<'v>>,
    inherited: Inherited,
    /// The directory itself, as long as nobody asked for it.
    pending: Option<Node<'v>>,
}

/// One thing that a copy takes.
#[derive(Debug)]
pub struct Picked<'n, 'v> {
    /// What it is.
    pub node: &'n Node<'v>,
    /// Its path below the source; empty for the source itself.
    pub below: &'n [u8],
    /// Whether it was asked for; a directory that is only on the way was not.
    pub wanted: bool,
}

/// Visits what a copy of `top` takes, in the order of a listing, starting with `top`, which is
/// taken whatever the filter says.
///
/// # Errors
///
/// The first one of `visit`.
pub fn walk<'v, E>(
    view: &'v View,
    top: &Node<'v>,
    filter: &Filter,
    mut visit: impl FnMut(Picked<'_, 'v>) -> Result<(), E>,
) -> Result<(), E> {
    let skip = match top.path() {
        b"" => 0,
        path => path.len() + 1,
    };
    visit(Picked { node: top, below: b"", wanted: true })?;
    let mut stack = Vec::new();
    if top.is_dir() {
        let rest = view.children(top).into_iter();
        stack.push(Frame { rest, inherited: Inherited::default(), pending: None });
    }
    while let Some(frame) = stack.last_mut() {
        let Some(node) = frame.rest.next() else {
            stack.pop();
            continue;
        };
        let below = &node.path()[skip..];
        if !node.is_dir() {
            if filter.takes(below, &frame.inherited) {
                flush(&mut stack, skip, &mut visit)?;
                visit(Picked { node: &node, below, wanted: true })?;
            }
            continue;
        }
        let decision = filter.takes_dir(below, &frame.inherited);
        if decision.taken {
            flush(&mut stack, skip, &mut visit)?;
            visit(Picked { node: &node, below, wanted: true })?;
        }
        if decision.entered {
            let rest = view.children(&node).into_iter();
            let pending = (!decision.taken).then_some(node);
            stack.push(Frame { rest, inherited: decision.inherited, pending });
        }
    }
    Ok(())
}

/// Visits the directories on the way that nobody has asked for yet.
fn flush<'v, E>(
    stack: &mut [Frame<'v>],
    skip: usize,
    visit: &mut impl FnMut(Picked<'_, 'v>) -> Result<(), E>,
) -> Result<(), E> {
    for frame in stack {
        if let Some(node) = frame.pending.take() {
            visit(Picked { node: &node, below: &node.path()[skip..], wanted: false })?;
        }
    }
    Ok(())
}
