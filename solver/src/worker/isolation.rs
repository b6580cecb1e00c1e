//! How steps are held in this place, and why not in a stronger way.

use super::launch::{Launched, Setup, Snapshotter};
use crate::sandbox::host::{Explained, Facts, explain};
use crate::sandbox::probe::Answers;
use crate::sandbox::refusal::Refusal;
use crate::sandbox::rung::Rung;

/// How steps are held on this host, as the first line of a build tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Isolation {
    /// `userns`, `userns-single`, or `none` where files are handled but nothing runs.
    pub rung: &'static str,
    /// Whether snapshots are overlays.
    pub overlay: bool,
    /// Whether these are made by `fuse-overlayfs`.
    pub helper: bool,
    /// Why a stronger rung or driver was refused; empty if none was.
    pub why: String,
    /// The rungs that the host refuses, with causes and ways out.
    pub refused: Vec<(Rung, Explained)>,
    /// Why no step could work in the store, if that is known.
    pub unsuited: Option<Explained>,
}

/// How steps will be held, as far as that is known without starting a worker. None where nothing
/// is allowed: that is asked again before anybody is told so.
pub(super) fn foresee(setup: &Setup, answers: &Answers) -> Option<Isolation> {
    let mut refused = Vec::new();
    for rung in setup.isolation.rungs() {
        match answers.rung(rung) {
            Ok(()) => {
                let overlay = match setup.snapshotter {
                    // It mounts nothing.
                    _ if rung == Rung::Chroot => Err(String::new()),
                    Snapshotter::Auto => answers.overlay(|| Facts::of(&setup.store)),
                    Snapshotter::Plain => Err(String::new()),
                    Snapshotter::Overlay | Snapshotter::FuseOverlayfs => return None,
                };
                let may_help = setup.snapshotter == Snapshotter::Auto && rung != Rung::Chroot;
                if overlay.is_err() && may_help && crate::sandbox::fuse::program().is_ok() {
                    return None;
                }
                let unsuited = answers.suited(overlay.is_ok()).err();
                let unsuited = unsuited.map(|it| explain(it, &Facts::of(&setup.store)));
                let found = Isolation::new(rung, &overlay, explained(refused));
                return Some(Isolation { unsuited, ..found });
            }
            Err(refusal) => refused.push((rung, refusal)),
        }
    }
    None
}

pub(super) fn explained(refused: Vec<(Rung, Refusal)>) -> Vec<(Rung, Explained)> {
    if refused.is_empty() {
        return Vec::new();
    }
    let facts = Facts::read();
    refused.into_iter().map(|(rung, refusal)| (rung, explain(refusal, &facts))).collect()
}

impl Isolation {
    /// With that rung, snapshots as said, and stronger rungs that were refused.
    pub fn new(rung: Rung, overlay: &Result<(), String>, refused: Vec<(Rung, Explained)>) -> Self {
        let rungs = refused.iter().map(|(rung, it)| format!("no {}: {}", rung.name(), it.refusal));
        let plain = overlay.as_ref().err().filter(|it| !it.is_empty());
        let plain = plain.iter().map(|it| format!("no overlay: {it}"));
        let why = rungs.chain(plain).collect::<Vec<_>>().join("; ");
        let overlay = overlay.is_ok();
        Self { rung: rung.name(), overlay, helper: false, why, refused, unsuited: None }
    }

    /// Without any.
    pub(super) fn none(refused: Vec<(Rung, Explained)>) -> Self {
        let why = refused.first().map(|it| it.1.to_string()).unwrap_or_default();
        Self { rung: "none", overlay: false, helper: false, why, refused, unsuited: None }
    }

    /// What a worker that has started says about the host.
    pub(super) fn of(launched: &Launched) -> Self {
        let overlay = match (launched.overlay, &launched.why_plain) {
            (true, _) => Ok(()),
            (false, why) => Err(why.clone().unwrap_or_default()),
        };
        let found = Self::new(launched.rung, &overlay, explained(launched.refused.clone()));
        let flaw = launched.why_plain.iter().filter(|_| launched.helper).cloned();
        let why = [found.why].into_iter().filter(|it| !it.is_empty()).chain(flaw);
        Self { helper: launched.helper, why: why.collect::<Vec<_>>().join("; "), ..found }
    }

    /// The same in the store of `setup`, of whose place `answers` are known.
    pub(super) fn in_store(self, setup: &Setup, answers: &Answers) -> Self {
        let unsuited = answers.suited(self.overlay).err();
        Self { unsuited: unsuited.map(|it| explain(it, &Facts::of(&setup.store))), ..self }
    }
}
