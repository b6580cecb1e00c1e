//! What no compiler checks about our own files. Every message says where, and what to do.

use rbuild_tests::sources::{Source, root, sources};

/// The most lines that a file may have.
const LINES: usize = 500;

/// Files above the limit, each with its reason.
const LONG: &[(&str, &str)] = &[];

/// The one file that may contain `unsafe`.
const UNSAFE: &str = "solver/src/sandbox/sys.rs";

/// Where printing is the job: the binary, and what talks to the person at the tests.
const PRINTS: [&str; 2] = ["builder/", "tests/"];

/// Fails with all findings at once.
#[track_caller]
fn check(mut find: impl FnMut(&Source) -> Vec<String>) {
    let found: Vec<String> = sources().iter().flat_map(&mut find).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn files_are_short() {
    check(|source| {
        let lines = source.text.lines().count();
        if lines <= LINES || LONG.iter().any(|(path, _)| *path == source.path) {
            return Vec::new();
        }
        vec![format!("{}: {lines} lines, {LINES} are the limit: split it by meaning", source.path)]
    });
}

#[test]
fn exceptions_are_still_needed() {
    let sources = sources();
    for (path, reason) in LONG {
        let long = sources
            .iter()
            .any(|source| source.path == *path && source.text.lines().count() > LINES);
        assert!(
            long,
            "{path} is short again, or gone: take it from the list (its reason was: {reason})"
        );
    }
}

#[test]
fn files_say_what_they_are_for() {
    check(|source| {
        if source.text.starts_with("//!") {
            Vec::new()
        } else {
            vec![format!("{}:1: starts without `//!`", source.path)]
        }
    });
}

#[test]
fn nothing_is_left_to_do() {
    // Put together here, so that this file does not find itself.
    let marks = ["TO", "FIX", "XX"].map(|start| {
        format!(
            "{start}{}",
            if start == "TO" {
                "DO"
            } else if start == "FIX" {
                "ME"
            } else {
                "X"
            }
        )
    });
    check(|source| {
        let marked = |line: &str| marks.iter().any(|mark| words(line).any(|word| word == mark));
        let lines = source.text.lines().enumerate().filter(|(_, line)| marked(line));
        lines
            .map(|(index, _)| format!("{}:{}: do it, or file an issue", source.path, index + 1))
            .collect()
    });
}

#[test]
fn unsafe_code_lies_in_one_file() {
    check(|source| {
        if source.path == UNSAFE || source.path == "tests/it/tidy.rs" {
            return Vec::new();
        }
        let lines = source.text.lines().enumerate().filter(|(_, line)| {
            let code = line.split("//").next().unwrap_or_default();
            let opens = words(code).any(|word| word == "unsafe");
            opens && !code.contains('"') && !code.contains("deny(") && !code.contains("forbid(")
        });
        lines
            .map(|(index, _)| {
                format!("{}:{}: `unsafe` belongs in {UNSAFE}", source.path, index + 1)
            })
            .collect()
    });
}

#[test]
fn libraries_do_not_print() {
    check(|source| {
        if source.is_test() || PRINTS.iter().any(|folder| source.path.starts_with(folder)) {
            return Vec::new();
        }
        let prints = ["println!", "eprintln!", "print!(", "eprint!(", "dbg!("];
        let lines =
            source.production().filter(|(_, line)| prints.iter().any(|print| line.contains(print)));
        lines
            .map(|(number, _)| {
                format!("{}:{number}: only builder/ prints: emit an event", source.path)
            })
            .collect()
    });
}

#[test]
fn tests_are_never_switched_off() {
    check(|source| {
        if source.path == "tests/it/tidy.rs" {
            return Vec::new();
        }
        let marks = ["#[ignore", "#[should_panic"];
        let lines = source
            .text
            .lines()
            .enumerate()
            .filter(|(_, line)| marks.iter().any(|mark| line.trim_start().starts_with(mark)));
        lines
            .map(|(index, _)| format!("{}:{}: repair it or remove it", source.path, index + 1))
            .collect()
    });
}

#[test]
fn the_map_names_every_module() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    check(|source| {
        let mut parts = source.path.split('/');
        let (Some(folder), Some("src"), Some(module)) = (parts.next(), parts.next(), parts.next())
        else {
            return Vec::new();
        };
        let file = module.strip_suffix(".rs");
        let name = file.unwrap_or(module);
        let entry = file.map_or_else(|| format!("{module}/"), |name| format!("{name}.rs"));
        if ["lib", "main", "tests"].contains(&name) || map.contains(&format!("`{entry}`")) {
            return Vec::new();
        }
        // A module may be a file and a folder of the same name: one entry serves both.
        if map.contains(&format!("`{name}.rs`")) || map.contains(&format!("`{name}/`")) {
            return Vec::new();
        }
        vec![format!("ARCHITECTURE.md: the code map of {folder}/ lacks `{entry}`")]
    });
}

#[test]
fn the_top_level_is_fixed() {
    let known = [
        ".cargo",
        ".ci",
        ".git",
        ".gitignore",
        ".github",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "SECURITY.md",
        "builder",
        "clippy.toml",
        "deny.toml",
        "docs",
        "examples",
        "frontend",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "solver",
        "store",
        "target",
        "tests",
    ];
    let entries = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strange: Vec<String> = entries.filter(|name| !known.contains(&name.as_str())).collect();
    assert!(
        strange.is_empty(),
        "the top level is fixed (ARCHITECTURE.md); these are new: {strange:?}"
    );
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}
