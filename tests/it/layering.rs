//! Who may import whom: the arrows of ARCHITECTURE.md, read from `use` paths and manifests.

use rbuild_tests::sources::{Source, root, sources};

/// One crate, and what of ours it may name.
struct Rule {
    folder: &'static str,
    /// Prefixes of paths; a crate's whole name allows all of it.
    may_use: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { folder: "store", may_use: &[] },
    Rule { folder: "solver", may_use: &["rbuild_store"] },
    Rule {
        folder: "frontend",
        may_use: &[
            "rbuild_solver::llb",
            "rbuild_store::digest",
            "rbuild_store::image",
            "rbuild_store::pattern",
            "rbuild_store::platform",
            "rbuild_store::reference",
        ],
    },
    Rule { folder: "builder", may_use: &["rbuild_frontend", "rbuild_solver", "rbuild_store"] },
];

/// What a crate without I/O must not name.
const OUTSIDE: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::ToSocketAddrs",
    "std::net::Udp",
    "std::process",
    "std::env",
    "std::io::std",
    "SystemTime::now",
    "tokio::",
    "rustix::",
    "libc::",
];

const OURS: [&str; 4] = ["rbuild_frontend", "rbuild_solver", "rbuild_store", "rbuild_tests"];

#[test]
fn crates_import_only_along_the_arrows() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(rule) = RULES.iter().find(|rule| rule.folder == source.crate_folder()) else {
            continue;
        };
        for (number, path) in named_paths(&source) {
            if !rule.may_use.iter().any(|allowed| below(&path, allowed)) {
                wrong.push(format!(
                    "{}:{number}: `{path}` is not for {}/",
                    source.path, rule.folder
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\nsee ARCHITECTURE.md, \"Who may import whom\"", wrong.join("\n"));
}

#[test]
fn manifests_follow_the_arrows_too() {
    for rule in RULES {
        let path = root().join(rule.folder).join("Cargo.toml");
        let manifest = std::fs::read_to_string(&path).unwrap();
        for line in manifest.lines().filter(|line| line.starts_with("rbuild-")) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default().replace('-', "_");
            let allowed = rule.may_use.iter().any(|path| below(path, &name));
            assert!(allowed, "{}: {}/ must not depend on {name}", path.display(), rule.folder);
        }
    }
}

#[test]
fn the_frontend_performs_no_io() {
    let mut wrong = Vec::new();
    for source in
        sources().iter().filter(|source| source.crate_folder() == "frontend" && !source.is_test())
    {
        for (number, line) in source.production() {
            if let Some(outside) = OUTSIDE.iter().find(|outside| line.contains(**outside)) {
                wrong.push(format!(
                    "{}:{number}: `{outside}`: ask the Gateway instead",
                    source.path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a path is `allowed` or lies in it.
fn below(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path of ours that production code names, with groups taken apart, and the number of its line.
fn named_paths(source: &Source) -> Vec<(usize, String)> {
    let lines: Vec<(usize, &str)> =
        if source.is_test() { Vec::new() } else { source.production().collect() };
    let mut named = Vec::new();
    for (position, (number, line)) in lines.iter().enumerate() {
        for ours in OURS {
            for (start, _) in line.match_indices(ours) {
                let rest = &line[start..];
                // A group may go on for several lines: up to the end of the statement.
                let more: String =
                    lines[position + 1..].iter().take(20).map(|(_, line)| *line).collect();
                let text = format!("{rest} {more}");
                let statement = text.split(';').next().unwrap_or_default().to_owned();
                named.extend(expanded(&statement).into_iter().map(|path| (*number, path)));
            }
        }
    }
    named
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`; anything else up to where the path ends.
fn expanded(text: &str) -> Vec<String> {
    let end =
        text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let stem = &text[..end];
    if !text[end..].starts_with('{') || !stem.ends_with("::") {
        return vec![stem.trim_end_matches(':').to_owned()];
    }
    let mut depth = 0;
    let mut items = vec![String::new()];
    for c in text[end..].chars() {
        match c {
            '{' if depth == 0 => depth = 1,
            '{' => {
                depth += 1;
                items.last_mut().expect("never empty").push(c);
            }
            '}' if depth == 1 => break,
            '}' => {
                depth -= 1;
                items.last_mut().expect("never empty").push(c);
            }
            ',' if depth == 1 => items.push(String::new()),
            c => items.last_mut().expect("never empty").push(c),
        }
    }
    items
        .iter()
        .filter(|item| !item.trim().is_empty())
        .flat_map(|item| expanded(&format!("{stem}{}", item.trim())))
        .collect()
}

#[test]
fn groups_are_taken_apart() {
    let paths = expanded("rbuild_store::{digest::{BlobId, Digest}, entry, image::config as c};");
    assert_eq!(
        paths,
        [
            "rbuild_store::digest::BlobId",
            "rbuild_store::digest::Digest",
            "rbuild_store::entry",
            "rbuild_store::image::config"
        ]
    );
    assert_eq!(expanded("rbuild_store::digest::Digest) -> u8 {"), ["rbuild_store::digest::Digest"]);
}
