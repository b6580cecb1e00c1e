//! What is made ready for one step, until its layer is kept or everything is thrown away.

use std::io;

use rustix::fs::{CWD, Mode, OFlags};

use super::fuse::Mounted;
use super::mounts::Tree;
use super::parent::{Outcome, Waiting};
use super::plan::{HostPath, Pretend};
use super::relay::Relay;
use super::supervisor::Start;
use crate::snapshot::{Access, LayerStore, Ownership, Prepared, Rootfs};
use crate::worker::proto::{
    Committed, ExecMount, ExecRequest, Failure, FailureKind, LayerId, MountSource,
};

/// What was made ready for one step and must be committed or discarded.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) root: Option<(Prepared, Option<LayerId>)>,
    pub(super) trees: Vec<(Prepared, Option<LayerId>)>,
    pub(super) relays: Vec<Relay>,
    /// Overlays by a helper.
    pub(super) mounted: Vec<Mounted>,
    pub(super) process: Option<Waiting>,
}

impl Held {
    /// Keeps what was written to the trees whose layers have a name.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub(super) fn commit(self, layers: &LayerStore) -> Result<Vec<Committed>, Failure> {
        let mut committed = Vec::new();
        for (prepared, layer) in self.root.into_iter().chain(self.trees) {
            match layer {
                Some(layer) => {
                    committed.push(layers.commit(prepared, &layer).map_err(|it| it.to_failure())?);
                }
                None => layers.discard(prepared).map_err(|it| it.to_failure())?,
            }
        }
        Ok(committed)
    }

    /// Keeps nothing.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub(super) fn discard(self, layers: &LayerStore) -> Result<(), Failure> {
        for (prepared, _) in self.root.into_iter().chain(self.trees) {
            layers.discard(prepared).map_err(|it| it.to_failure())?;
        }
        Ok(())
    }
}

/// The tree that the step sees as its root, and the layer that what it writes becomes.
///
/// # Errors
///
/// If it cannot be made.
pub(super) fn root_tree(
    layers: &LayerStore,
    mount: &ExecMount,
) -> Result<(Prepared, Option<LayerId>), Failure> {
    let MountSource::Tree { chain, selector, commit } = &mount.source else {
        let text = "the root of a step is not a tree".to_owned();
        return Err(Failure { kind: FailureKind::Bug, text });
    };
    if !selector.trim_matches('/').is_empty() {
        return Err(Failure {
            kind: FailureKind::User,
            text: "a path within a tree cannot be the root of a step".to_owned(),
        });
    }
    // Mount points may have to be made, even for a root that the step cannot write to.
    let prepared = layers.prepare(chain, Access::Write).map_err(|it| it.to_failure())?;
    Ok((prepared, commit.clone()))
}

/// What of a prepared tree is mounted.
pub(super) fn tree(rootfs: &Rootfs) -> Tree {
    match rootfs {
        Rootfs::Overlay { lowers, upper } => Tree::Overlay {
            lowers: lowers.iter().map(HostPath::from).collect(),
            upper: upper.as_ref().map(|it| (HostPath::from(&it.dir), HostPath::from(&it.work))),
        },
        Rootfs::Dir(path) => Tree::Directory(path.into()),
    }
}

/// Removes the mount points that were made for a step from what it wrote.
///
/// # Errors
///
/// If the disk refuses.
pub(super) fn remove_stubs(root: &Prepared, outcome: &Outcome) -> Result<(), Failure> {
    if outcome.stubs.is_empty() {
        return Ok(());
    }
    let dir = match root.rootfs() {
        Rootfs::Overlay { upper: Some(upper), .. } => &upper.dir,
        Rootfs::Overlay { upper: None, .. } => return Ok(()),
        Rootfs::Dir(path) => path,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, dir, flags, Mode::empty())
        .and_then(|dir| super::target::remove_stubs(&dir, &outcome.stubs))
        .map_err(|errno| {
            let source = io::Error::from(errno);
            let text =
                format!("cannot remove mount points of a step from `{}`: {source}", dir.display());
            Failure { kind: FailureKind::Host, text }
        })
}

/// What the step's supervisor answers for. Most steps neither have devices in their trees nor make
/// any, and looking at files costs nothing more there.
pub(super) fn pretend(layers: &LayerStore, request: &ExecRequest) -> Result<Pretend, Failure> {
    if layers.ownership() == Ownership::Recorded {
        return Ok(Pretend::Ids);
    }
    let mut devices = request.args.iter().any(|it| it.contains("mknod"));
    for mount in &request.mounts {
        if let MountSource::Tree { chain, .. } = &mount.source {
            devices = devices || layers.has_devices(chain).map_err(|it| it.to_failure())?;
        }
    }
    Ok(if devices { Pretend::Devices } else { Pretend::NewDevices })
}

/// What the supervisor of a step knows of its tree.
pub(super) fn start(layers: &LayerStore, root: &Prepared) -> Result<Start, Failure> {
    let known = layers.known_records(root).map_err(|it| it.to_failure())?;
    let upper = match root.rootfs() {
        Rootfs::Overlay { upper, .. } => upper.as_ref().map(|it| it.dir.clone()),
        Rootfs::Dir(_) => None,
    };
    Ok(Start { view: root.view.clone(), known, upper })
}
