//! File operations (`COPY`, `ADD`, `WORKDIR`) as decisions: listings in, the plan of a layer out.
//!
//! ```text
//!  inputs (chains of listings) ─> draft (what the actions changed) ─> plan: listing + contents
//! ```
//!
//! The semantics are those of BuildKit's file backend, whose words the errors have. A plan is the
//! difference to the tree that is built upon, as BuildKit's layers record it: what is new or
//! changed, the directories on the way to it, a whiteout for what is gone; a file that is copied
//! onto an equal one is no change.
//!
//! Contents are named, not read: a plan's regular files refer to a root and a path below it.

mod chmod;
mod copy;
mod draft;
mod emit;
mod error;
mod graft;
mod make;
mod owner;
pub(super) mod source;
#[cfg(test)]
mod tests;
mod unpack;

use std::io;
use std::sync::Arc;

use rbuild_store::entry::Timestamp;

use self::draft::Draft;
pub use self::error::FileOpError;
use self::source::{Context, Roots, Source};
use super::listing::Listing;
use super::view::View;
use crate::llb::op::{Chown, FileAction, FileActionKind, FileInput, FileOp};
use crate::worker::contents::ContentList;
use crate::worker::proto::Root;

/// A tree that a file operation reads or builds upon: layers, lowest first.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The layers.
    pub layers: Vec<Layer>,
}

/// A layer of an [`Input`].
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its entries.
    pub listing: Arc<Listing>,
    /// Where the contents of its regular files are.
    pub files: Files,
}

/// Where the contents of a layer's regular files are.
#[derive(Clone, Debug)]
pub enum Files {
    /// Below a root, each at the path of its entry. The number of a [`Root::Fd`] is the caller's:
    /// it comes back in plans as it was given.
    Root(Root),
    /// Where the plan of the layer says.
    Planned(Arc<Contents>),
}

/// Where the contents of a planned layer are.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The roots that contents refer to by number.
    pub roots: Vec<Root>,
    /// One for each regular file of the listing, in its order.
    pub files: ContentList,
}

/// A layer that does not exist yet.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Its entries.
    pub listing: Listing,
    /// Contents of its regular files.
    pub contents: Contents,
}

/// One output of a file operation: a tree that one more layer is put on.
#[derive(Clone, Debug)]
pub struct Output {
    /// The input that it is built upon; none for an empty tree.
    pub base: Option<usize>,
    /// What is put on it; may be empty.
    pub plan: Plan,
}

/// What the evaluation needs from outside.
pub trait Host {
    /// Opens the content of a file for reading.
    ///
    /// # Errors
    ///
    /// If it is not there.
    fn open(&self, root: &Root, path: &[u8]) -> io::Result<Box<dyn io::Read + Send>>;

    /// A new empty directory for the files of an archive, and the root under which a plan can name
    /// it. It is kept as long as the plan.
    ///
    /// # Errors
    ///
    /// If there is no room.
    fn stage(&self) -> io::Result<(Root, std::os::fd::OwnedFd)>;
}

/// Evaluates an operation; outputs are sorted by number.
///
/// `now` is the time of what is made without a time of its own.
///
/// # Errors
///
/// If BuildKit would refuse, in its words, or the host fails.
pub fn evaluate(
    op: &FileOp,
    inputs: &[Input],
    host: &dyn Host,
    now: Timestamp,
) -> Result<Vec<Output>, FileOpError> {
    let mut roots = Roots::default();
    let mut run = Run {
        sources: inputs.iter().map(|input| Source::new(input, &mut roots)).collect(),
        roots,
        drafts: Vec::with_capacity(op.actions.len()),
        host,
        now,
        alone: op.actions.len() == 1,
        uses: uses(op),
    };
    let mut outputs: Vec<(usize, usize)> = Vec::new();
    for (number, action) in op.actions.iter().enumerate() {
        let state = run.action(action)?;
        run.drafts.push(state);
        if let Some(output) = action.output {
            outputs.push((output, number));
        }
    }
    outputs.sort_unstable();
    if outputs.is_empty() || outputs.iter().enumerate().any(|(at, &(number, _))| at != number) {
        return Err(FileOpError::Graph("outputs are not numbered from 0 without gaps"));
    }
    let Run { drafts, mut roots, .. } = run;
    let plans = outputs.into_iter().map(|(_, action)| {
        let state = &drafts[action];
        let (listing, files) = emit::emit(&state.draft, &mut roots);
        let contents = Contents { roots: roots.list().to_vec(), files };
        Output { base: state.base, plan: Plan { listing, contents } }
    });
    Ok(plans.collect())
}

/// How often the result of each action is asked for: as input, as what is copied, as output.
fn uses(op: &FileOp) -> Vec<usize> {
    let mut uses = vec![0; op.actions.len()];
    for (number, action) in op.actions.iter().enumerate() {
        uses[number] += usize::from(action.output.is_some());
        for input in [Some(action.input), action.secondary].into_iter().flatten() {
            if let FileInput::Action(at) = input
                && let Some(count) = uses.get_mut(at)
            {
                *count += 1;
            }
        }
    }
    uses
}

/// The result of an action.
#[derive(Clone, Default)]
struct State {
    /// The input at the start of the chain of actions.
    base: Option<usize>,
    draft: Draft,
}

struct Run<'a> {
    sources: Vec<Source>,
    roots: Roots,
    drafts: Vec<State>,
    host: &'a dyn Host,
    now: Timestamp,
    /// Whether there is one action only.
    alone: bool,
    /// How often the result of each action is still asked for.
    uses: Vec<usize>,
}

impl Run<'_> {
    fn action(&mut self, action: &FileAction) -> Result<State, FileOpError> {
        let mut state = self.start(action.input)?;
        let owner = |owner: &Option<Chown>| {
            owner::find(owner.as_ref(), state.base.map(|at| (at, &self.sources[at])), self.host)
        };
        match &action.kind {
            FileActionKind::Mkdir { path, mode, make_parents, owner: chown, timestamp } => {
                let how = make::How { mode: *mode, owner: owner(chown)?, time: time(*timestamp) };
                make::mkdir(&mut state.draft, path, *make_parents, &how)?;
            }
            FileActionKind::Mkfile { path, mode, data, owner: chown, timestamp } => {
                let how = make::How { mode: *mode, owner: owner(chown)?, time: time(*timestamp) };
                make::mkfile(&mut state.draft, path, data, &how)?;
            }
            FileActionKind::Symlink { oldpath, newpath, owner: chown, timestamp } => {
                let how = make::How { mode: 0o777, owner: owner(chown)?, time: time(*timestamp) };
                make::symlink(&mut state.draft, oldpath, newpath, &how)?;
            }
            FileActionKind::Rm { path, allow_not_found, allow_wildcard } => {
                make::rm(&mut state.draft, path, *allow_not_found, *allow_wildcard)?;
            }
            FileActionKind::Copy(copy) => {
                let owner = owner(&copy.owner)?;
                let source = self.source(action.secondary)?;
                let base = state.base.map(|at| self.sources[at].clone());
                let context =
                    Context { roots: &mut self.roots, host: self.host, base, alone: self.alone };
                copy::copy(&mut state.draft, &source, copy, owner, context)?;
            }
        }
        Ok(state)
    }

    /// What an action starts from.
    fn start(&mut self, input: FileInput) -> Result<State, FileOpError> {
        Ok(match input {
            FileInput::Scratch => {
                State { base: None, draft: Draft::new(Arc::new(View::default()), self.now) }
            }
            FileInput::Input(at) => {
                let source =
                    self.sources.get(at).ok_or(FileOpError::Graph("an input is missing"))?;
                State { base: Some(at), draft: Draft::new(source.view(), self.now) }
            }
            FileInput::Action(at) => {
                let missing = FileOpError::Graph("an action is missing");
                let state = self.drafts.get_mut(at).ok_or(missing)?;
                // A chain of actions hands one draft on: copies of all of them would add up.
                if self.uses.get(at) == Some(&1) { std::mem::take(state) } else { state.clone() }
            }
        })
    }

    /// What a copy reads.
    fn source(&mut self, input: Option<FileInput>) -> Result<Source, FileOpError> {
        match input {
            None | Some(FileInput::Scratch) => Ok(Source::new(&Input::default(), &mut self.roots)),
            Some(FileInput::Input(at)) => {
                self.sources.get(at).cloned().ok_or(FileOpError::Graph("an input is missing"))
            }
            Some(FileInput::Action(at)) => {
                let state =
                    self.drafts.get(at).ok_or(FileOpError::Graph("an action is missing"))?;
                let (listing, files) = emit::emit(&state.draft, &mut self.roots);
                let contents = Contents { roots: self.roots.list().to_vec(), files };
                let layer =
                    Layer { listing: Arc::new(listing), files: Files::Planned(Arc::new(contents)) };
                let base = match state.base {
                    Some(at) => self.sources[at].clone(),
                    None => Source::new(&Input::default(), &mut self.roots),
                };
                Ok(base.with(layer, &mut self.roots))
            }
        }
    }
}

/// A time in nanoseconds since the epoch.
fn time(nanoseconds: Option<i64>) -> Option<Timestamp> {
    let nanoseconds = nanoseconds?;
    let nanos = nanoseconds.rem_euclid(1_000_000_000).try_into().expect("less than a second");
    Some(Timestamp { secs: nanoseconds.div_euclid(1_000_000_000), nanos })
}
