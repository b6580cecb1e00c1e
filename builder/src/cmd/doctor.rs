//! `rbuild doctor`: what this place allows, found out by trying it.
//!
//! Everything is asked now, whatever earlier builds have found out; what is found is kept for the
//! builds that follow. [`Report`] is all that was found, as data; it is shown as text or as JSON.

mod text;

use std::path::Path;

use rbuild_solver::sandbox::host::{Explained, Facts, explain};
use rbuild_solver::sandbox::probe::{self, Answer, Question};
use rbuild_solver::sandbox::rung::Rung;
use serde_json::{Value, json};

use super::isolation::MISSING;
use super::{open_store, print};
use crate::cli::raw::{Doctor, Format};
use crate::report::{Failure, Kind};

/// Rungs of the plan that this version does not have.
const PLANNED: [&str; 1] = ["ptrace"];

/// What a kind of isolation or snapshot is called where there is none.
const NONE: &str = "none";

/// What network steps have that have none of their own.
const CALLERS: &str = "that of the caller";

/// What only namespaces could keep a step from.
const UNPROMISED_BY_CHROOT: [&str; 7] = [
    "there are no namespaces: a step can tell that there are other processes in the container, and \
     shares its message queues and System V memory; it cannot read or trace them, nor signal them",
    "what keeps a step to its tree is a missing capability and Landlock; where the kernel has no \
     Landlock, a process that gets out of its tree meets no second wall",
    "set-user-id programs and file capabilities give no rights (no_new_privs): `sudo` does not work \
     in a step whose user is not root",
    "what a step mounts read-only is a copy: it is told that it cannot be written to, and what it \
     writes all the same is lost; a tmpfs is a directory, and its size has no limit",
    "a device node that a step makes is an empty file to the step; in the image it is a device",
    "what a step writes into a cache another one that has it mounted sees under old names at once, \
     under new ones when the first has ended",
    "a step lives on if rbuild, its keeper and the guard of that are killed at the same moment",
];

/// All that was found.
#[derive(Debug)]
struct Report {
    rungs: Vec<(Rung, Result<(), Explained>)>,
    questions: Vec<(Question, Result<(), Explained>)>,
    networks: Vec<(Question, Result<(), Explained>)>,
    store: String,
    store_fs: String,
}

/// Tries everything and tells what became of it.
///
/// # Errors
///
/// If the store cannot be opened or nothing can be asked.
pub fn run(raw: &Doctor, root: &Path) -> Result<(), Failure> {
    let store = open_store(root)?;
    let report = Report::make(store.root())?;
    print(&match raw.format {
        Some(Format::Json) => format!("{:#}\n", report.json()),
        Some(Format::Text) | None => report.text(),
    })
}

impl Report {
    fn make(store: &Path) -> Result<Self, Failure> {
        let answers = probe::renew(store, &Question::ALL);
        let answers = answers.ok_or_else(|| {
            Failure::new(Kind::Host, "the process that is to find out what works here fails")
        })?;
        // Who takes too long to answer has not.
        let slow = probe::ask(store, &Question::SLOW).unwrap_or_default();
        let facts = Facts::of(store);
        let told = |answer: Answer| answer.map_err(|refusal| explain(refusal, &facts));
        let helper = Question::FuseOverlayfs;
        let questions = Question::ALL.map(|it| (it, told(answers.get(it)))).into_iter();
        let questions = questions.chain([(helper, told(slow.get(helper)))]);
        Ok(Self {
            rungs: Rung::ALL.map(|rung| (rung, told(answers.rung(rung)))).to_vec(),
            questions: questions.collect(),
            networks: Question::NETWORKS.map(|it| (it, told(slow.get(it)))).to_vec(),
            store: store.display().to_string(),
            store_fs: facts.store_fs.clone(),
        })
    }

    /// The strongest rung that works.
    fn rung(&self) -> Option<Rung> {
        self.rungs.iter().find(|it| it.1.is_ok()).map(|it| it.0)
    }

    fn answer(&self, question: Question) -> Result<(), &Explained> {
        let found = self.questions.iter().find(|it| it.0 == question);
        found.map_or(Ok(()), |it| it.1.as_ref().copied())
    }

    /// How trees of steps are put together.
    fn snapshots(&self) -> &'static str {
        let mounts = self.rung().is_some_and(|it| it != Rung::Chroot);
        if mounts && self.answer(Question::Overlay).is_ok() {
            "overlay"
        } else if mounts && self.answer(Question::FuseOverlayfs).is_ok() {
            "fuse-overlayfs"
        } else if self.answer(Question::Reflink).is_ok() {
            "plain, by shared blocks"
        } else {
            "plain, by copy"
        }
    }

    /// Why not by overlay; empty if they are, or nothing runs.
    fn why_plain(&self) -> String {
        let refused = self.answer(Question::Overlay).err().filter(|_| self.rung().is_some());
        let helper = self.answer(Question::FuseOverlayfs).err();
        let helper = helper.map(|it| format!("; {}", it.refusal.detail)).unwrap_or_default();
        refused.map(|it| format!("{}{helper}", it.cause)).unwrap_or_default()
    }

    /// What network a step has that asks for none in particular.
    fn network(&self) -> &'static str {
        match self.rung() {
            None => return NONE,
            Some(Rung::Chroot) => return CALLERS,
            Some(Rung::Userns | Rung::UsernsSingle) => {}
        }
        let found = self.networks.iter().find(|it| it.1.is_ok());
        match found.map(|it| it.0) {
            Some(Question::Embedded) => "embedded",
            Some(question) => question.name(),
            None => CALLERS,
        }
    }

    /// Who holds a step to limits such as `--memory`.
    fn limits(&self) -> &'static str {
        match (self.rung(), self.answer(Question::Cgroup)) {
            (None, _) => NONE,
            (Some(_), Ok(())) => "cgroup",
            (Some(_), Err(_)) => "each process alone",
        }
    }

    fn json(&self) -> Value {
        let rungs = self.rungs.iter().map(|(rung, it)| row("rung", rung.name(), it.as_ref()));
        let planned = PLANNED.map(|it| json!({"rung": it, "works": false, "cause": MISSING}));
        let of = |all: &[(Question, Result<(), Explained>)], key: &str| -> Vec<Value> {
            all.iter().map(|(it, found)| row(key, it.id(), found.as_ref())).collect()
        };
        json!({
            "isolation": self.rung().map_or(NONE, Rung::name),
            "rungs": rungs.chain(planned).collect::<Vec<_>>(),
            "not_promised": self.not_promised(),
            "snapshots": {
                "driver": self.snapshots(),
                "why": self.why_plain(),
                "store": self.store,
                "file_system": self.store_fs,
            },
            "network": { "default": self.network(), "backends": of(&self.networks, "backend") },
            "limits": self.limits(),
            "questions": of(&self.questions, "question"),
        })
    }

    /// What a step is not kept from on the rung that is chosen.
    fn not_promised(&self) -> Vec<&'static str> {
        let mut lines = Vec::new();
        match self.rung() {
            None => return lines,
            Some(Rung::Userns) => {}
            Some(Rung::UsernsSingle) => {
                lines.push(
                    "users of an image are told apart for the step's own eyes only: whoever runs in a \
                     step has root's rights over its tree, and can signal and trace what runs there",
                );
                if self.answer(Question::Listener).is_err() {
                    lines.push("owners: all files that a step makes belong to root in the image");
                }
            }
            Some(Rung::Chroot) => lines.extend(UNPROMISED_BY_CHROOT),
        }
        if self.rung() != Some(Rung::Chroot) && self.answer(Question::FreshProc).is_err() {
            lines.push(
                "processes of the container around are visible in a step's /proc; it cannot signal, \
                 trace or read them",
            );
        }
        if self.network() == CALLERS {
            lines.push("steps share the caller's network, its loopback included");
        }
        lines.push("a hole in the kernel is no obstacle: build for strangers in a virtual machine");
        lines
    }
}

fn row(key: &str, name: &str, found: Result<&(), &Explained>) -> Value {
    match found {
        Ok(()) => json!({key: name, "works": true}),
        Err(it) => json!({
            key: name,
            "works": false,
            "call": it.refusal.call,
            "errno": it.refusal.errno,
            "error": it.refusal.error_name(),
            "detail": it.refusal.detail,
            "cause": it.cause,
            "remedies": it.remedies,
        }),
    }
}
