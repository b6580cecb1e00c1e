//! The project's own Rust files, for the tests that read them.

use std::path::{Path, PathBuf};

/// One Rust file of the project.
#[derive(Debug)]
pub struct Source {
    /// Its path below the root of the project, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// The folders that hold Rust code.
const CODE: [&str; 5] = ["builder", "frontend", "solver", "store", "tests"];

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root of the project")
}

/// Every `.rs` file, sorted by path.
///
/// # Panics
///
/// If the project's own files can not be read: no test could mean anything then.
pub fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in CODE {
        collect(&root().join(folder), &mut paths);
    }
    paths.sort();
    paths.into_iter().map(|path| read(&path)).collect()
}

fn read(path: &Path) -> Source {
    let text = std::fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("could not read `{}`: {error}", path.display()));
    let below = path.strip_prefix(root()).expect("collected below the root");
    Source { path: below.to_string_lossy().into_owned(), text }
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder);
    let entries =
        entries.unwrap_or_else(|error| panic!("could not list `{}`: {error}", folder.display()));
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

impl Source {
    /// The folder at the top of the project: the crate, for all but the task runner.
    pub fn crate_folder(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// The lines of production code with their numbers: up to an inline test module at the end, without comments.
    pub fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let end = test_module(&lines).unwrap_or(lines.len());
        let numbered =
            lines.into_iter().take(end).enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Whether all of it is test code.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
    }
}

/// The index of the line that opens the inline test module, if there is one.
fn test_module(lines: &[&str]) -> Option<usize> {
    let attributes = lines.iter().enumerate().filter(|(_, line)| line.trim_end() == "#[cfg(test)]");
    let opens = |index: usize| {
        let next = lines.iter().skip(index + 1).find(|line| !line.trim_start().starts_with("#["));
        next.is_some_and(|line| line.starts_with("mod ") && line.trim_end().ends_with('{'))
    };
    attributes.map(|(index, _)| index).find(|index| opens(*index))
}
