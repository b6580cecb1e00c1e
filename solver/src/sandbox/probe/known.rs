//! Answers that are kept: a build does not ask again what it knows.
//!
//! They are in the store, in one file for each set of facts, with the facts beside them; they count
//! only as long as every fact is the same ([`Facts`]: boot, ids, seccomp, label, program, ranges of
//! ids, namespaces, …). What turns out wrong is forgotten. A worker that was started without any
//! leaves those that it has found out by working.

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_store::digest::Hasher;
use rbuild_store::durable::{self, Durability};
use rbuild_store::layout::Layout;
use serde::{Deserialize, Serialize};

use super::{Answers, Question, ask};
use crate::sandbox::host::Facts;
use crate::sandbox::rung::Wanted;

/// Bytes of a file of answers that are read.
const MAX_BYTES: u64 = 1 << 20;

/// Sets of facts whose answers are kept.
const MAX_KEPT: usize = 16;

#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    facts: Facts,
    answers: Answers,
}

/// The answers for the store at `store`: kept ones, else new ones, which are kept. None if nothing
/// could be asked.
pub fn known(store: &Path, wanted: Wanted) -> Option<Answers> {
    kept(store, wanted).or_else(|| renew(store, &Question::OF_A_BUILD))
}

/// The answers that are kept for the store at `store`, if they tell about the rungs that are wanted.
pub fn kept(store: &Path, wanted: Wanted) -> Option<Answers> {
    // The facts are many files, and of no use in a new store.
    fs::read_dir(Layout::new(store).probes()).ok()?.next()?.ok()?;
    let facts = Facts::of(store);
    read(&path(store, &facts), &facts, wanted)
}

/// Asks, whatever is known, and keeps the answers.
pub fn renew(store: &Path, questions: &[Question]) -> Option<Answers> {
    let facts = Facts::of(store);
    let answers = ask(store, questions).ok()?;
    // Where nothing can be kept it is asked each time.
    let _ = write(store, &Kept { facts, answers: answers.clone() });
    Some(answers)
}

/// Keeps what was found out otherwise.
pub fn keep(store: &Path, answers: Answers) {
    // As above.
    let _ = write(store, &Kept { facts: Facts::of(store), answers });
}

/// Forgets the answers for the store at `store`: one of them was wrong.
pub fn forget(store: &Path) {
    // Not there is forgotten, too.
    drop(fs::remove_file(path(store, &Facts::of(store))));
}

fn path(store: &Path, facts: &Facts) -> PathBuf {
    let mut hasher = Hasher::new();
    hasher.field(format!("{facts:?}").as_bytes());
    Layout::new(store).probes().join(hasher.finish().hex())
}

fn read(path: &Path, facts: &Facts, wanted: Wanted) -> Option<Answers> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let kept: Kept = serde_json::from_slice(&bytes).ok()?;
    // A program that was missing may be along another `PATH` this time.
    let missing = kept.answers.iter().any(|(_, it)| {
        it.as_ref().is_err_and(|it| it.is_about_ranges() && it.detail.starts_with("not installed"))
    });
    // An older rbuild did not ask everything, and a worker knows only of what it needs itself.
    let whole = kept.answers.decide(wanted);
    (kept.facts == *facts && !missing && whole).then_some(kept.answers)
}

fn write(store: &Path, kept: &Kept) -> Option<()> {
    let layout = Layout::new(store);
    fs::create_dir_all(layout.probes()).ok()?;
    make_room(&layout.probes());
    let temp = layout.probes().join(format!("new-{}", std::process::id()));
    fs::write(&temp, serde_json::to_vec(kept).ok()?).ok()?;
    durable::publish(&temp, &path(store, &kept.facts), Durability::Process).ok()
}

/// Old facts do not come back: when there are many, all go.
fn make_room(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|it| it.path()).collect();
    if paths.len() >= MAX_KEPT {
        for path in paths {
            drop(fs::remove_file(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_answers_count_only_with_their_facts() {
        let store = tempfile::tempdir().unwrap();
        let facts = Facts { uid: 7, ..Facts::default() };
        let answers = Answers::refusing_nothing(&Question::OF_A_BUILD);
        let kept = Kept { facts: facts.clone(), answers: answers.clone() };
        write(store.path(), &kept).unwrap();
        let path = path(store.path(), &facts);
        let read = |facts: &Facts| read(&path, facts, Wanted::Auto);
        assert_eq!(read(&facts), Some(answers));
        assert_eq!(read(&Facts { seccomp: 2, ..facts.clone() }), None);
        let older = Answers::refusing_nothing(&Question::OF_A_BUILD[1..]);
        write(store.path(), &Kept { facts: facts.clone(), answers: older }).unwrap();
        assert_eq!(read(&facts), None, "one question was not asked");
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&facts), None);
    }

    #[test]
    fn not_too_many_are_kept() {
        let store = tempfile::tempdir().unwrap();
        for uid in 0..40 {
            let facts = Facts { uid, ..Facts::default() };
            write(store.path(), &Kept { facts, answers: Answers::default() }).unwrap();
            let kept = fs::read_dir(Layout::new(store.path()).probes()).unwrap().count();
            assert!((1..=MAX_KEPT).contains(&kept));
        }
    }
}
