//! The law of plans: the layer on top of the base shows what the draft shows.

use proptest::prelude::*;
use rbuild_store::entry::Entry;

use super::*;
use crate::tree::fileop::draft::Draft;
use crate::tree::listing::{compare, join};
use crate::tree::resolve::{Stat, Tree as _};

/// Few names, so that paths meet.
fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(vec!["a", "b", "a-"]), 1..4)
        .prop_map(|parts| parts.join("/"))
}

/// A tree of lines; what does not fit together is dropped.
fn tree() -> impl Strategy<Value = Listing> {
    let kind = proptest::sample::select(vec!["/", "/", "=1", "=2", "->a", "->../b"]);
    let line = (path(), kind, 0..3_u32);
    proptest::collection::vec(line, 0..10).prop_map(|lines| {
        let entries = lines.into_iter().map(|(path, kind, owner)| {
            listing(&format!("{path}{kind} o{owner}:0 t{owner}")).into_entries().remove(0)
        });
        let listing = Listing::from_archive(entries).expect("canonical paths");
        // Parents that are no directories were dropped with what is below them.
        Listing::new(listing.into_entries()).expect("sorted")
    })
}

fn action() -> impl Strategy<Value = FileActionKind> {
    let copied =
        (path(), path(), any::<[bool; 4]>()).prop_map(|(src, dest, [top, into, own, filter])| {
            let flag = |set: bool, text: &'static str| if set { text } else { "" };
            let dest = format!("/{dest}{}", flag(into, "/"));
            let src = if top { "/".to_owned() } else { format!("/{src}") };
            let options = [
                flag(own, " chown:7"),
                flag(filter, " exclude:a exclude:!a/b"),
                flag(into, " replace:"),
            ];
            copy(&format!("{src} {dest}{}", options.concat()))
        });
    let removed = path().prop_map(|path| FileActionKind::Rm {
        path: format!("/{path}"),
        allow_not_found: true,
        allow_wildcard: false,
    });
    let made = path().prop_map(|path| FileActionKind::Mkdir {
        path: format!("/{path}"),
        mode: 0o700,
        make_parents: true,
        owner: None,
        timestamp: None,
    });
    prop_oneof![3 => copied, 2 => removed, 1 => made]
}

/// Every path of a draft with what is there.
fn of_draft(draft: &Draft, dir: &[u8], found: &mut Vec<(Vec<u8>, Stat)>) {
    for name in draft.names(dir) {
        let path = join(dir, &name);
        let stat = draft.stat(&path).expect("what is listed is there");
        found.push((path.clone(), stat.clone()));
        if stat == Stat::Dir {
            of_draft(draft, &path, found);
        }
    }
}

fn of_view(view: &View) -> Vec<(Vec<u8>, Stat)> {
    let mut found = Vec::new();
    view.walk(&view.root(), &mut |node| {
        found.push((node.path().to_vec(), Stat::of(&node.inode().kind)));
        true
    });
    found.remove(0);
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_layer_on_the_base_is_the_draft(
        lower in tree(), upper in tree(), source in tree(),
        actions in proptest::collection::vec(action(), 1..5),
    ) {
        let mut world = World::new(&[]);
        let layers = [lower, upper].map(|listing| Layer { listing: Arc::new(listing), files: super::super::Files::Root(Root::Fd(0)) });
        world.inputs.push(Input { layers: layers.to_vec() });
        world.push(source, Root::Fd(1));
        let mut roots = Roots::default();
        let sources = world.inputs.iter().map(|input| Source::new(input, &mut roots)).collect();
        let mut run = Run { sources, roots, drafts: Vec::new(), host: &world.host, now: Timestamp::from_secs(99), alone: false, uses: Vec::new() };
        let mut input = FileInput::Input(0);
        for kind in actions {
            let action = FileAction { input, secondary: Some(FileInput::Input(1)), output: Some(0), kind };
            // What is refused changes nothing.
            if let Ok(state) = run.action(&action) {
                run.drafts.push(state);
                input = FileInput::Action(run.drafts.len() - 1);
            }
        }
        let Some(state) = run.drafts.last() else { return Ok(()) };
        let (layer, contents) = emit::emit(&state.draft, &mut Roots::default());
        let files = layer.entries().iter().filter(|entry| matches!(entry.kind, Kind::File { .. }));
        prop_assert_eq!(files.count(), contents.len());
        let mut listings: Vec<Arc<Listing>> = world.inputs[0].layers.iter().map(|it| Arc::clone(&it.listing)).collect();
        listings.push(Arc::new(layer));
        let mut want = Vec::new();
        of_draft(&state.draft, b"", &mut want);
        want.sort_by(|left, right| compare(&left.0, &right.0));
        prop_assert_eq!(of_view(&View::new(listings)), want);
    }

    /// A copy that is all that is done may go from the source into the plan at once; one that
    /// something comes after goes through the draft.
    #[test]
    fn a_graft_is_a_copy(base in tree(), source in tree(), links in any::<bool>(), copy in action()) {
        let mut world = World::new(&[]);
        world.push(base, Root::Fd(0));
        let mut entries = source.into_entries();
        if links && let Some(at) = entries.iter().position(|it| matches!(it.kind, Kind::File { .. })) {
            let kind = Kind::Hardlink { target: entries[at].path.clone() };
            entries.push(Entry { path: b"z".into(), kind, ..entries[at].clone() });
        }
        world.push(Listing::new(entries).expect("z comes last"), Root::Fd(1));
        let nothing = FileActionKind::Rm { path: "/none".to_owned(), allow_not_found: true, allow_wildcard: false };
        let plan = |kinds: &[&FileActionKind]| {
            let actions = kinds.iter().enumerate().map(|(number, &kind)| FileAction {
                input: if number == 0 { FileInput::Input(0) } else { FileInput::Action(number - 1) },
                secondary: Some(FileInput::Input(1)),
                output: (number + 1 == kinds.len()).then_some(0),
                kind: kind.clone(),
            });
            let op = FileOp { actions: actions.collect(), platform: None };
            let outputs = evaluate(&op, &world.inputs, &world.host, Timestamp::from_secs(99));
            outputs.map_err(|error| error.to_string()).map(|mut outputs| {
                let Plan { listing, contents } = outputs.remove(0).plan;
                (listing, contents.files.iter().collect::<Vec<_>>())
            })
        };
        prop_assert_eq!(plan(&[&copy]), plan(&[&copy, &nothing]));
    }
}
