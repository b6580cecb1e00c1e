//! Paths of Dockerfiles: text only, always `/`, never the host's file system.

use rbuild_store::pattern::clean;

/// `path` below `parent`, cleaned; an absolute `path` is below it, too.
pub(crate) fn join(parent: &str, path: &str) -> String {
    clean(&format!("{parent}/{path}"))
}

/// `path` from the root, cleaned.
pub(crate) fn rooted(path: &str) -> String {
    join("/", path)
}

/// The directory that `WORKDIR path` means where `current` is set. An absolute path is kept as it
/// is written.
pub(crate) fn workdir(current: &str, path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else if path.is_empty() {
        rooted(current)
    } else {
        join(&format!("/{current}"), path)
    }
}

/// The destination of a copy from the working directory `dir`. A trailing `/` or `/.` stays: it
/// says that a directory is meant.
pub(crate) fn destination(dir: &str, path: &str) -> String {
    let path = if path.is_empty() || path == "." { "./" } else { path };
    let mut absolute =
        if path.starts_with('/') { clean(path) } else { rooted(&format!("{dir}/{path}")) };
    if path.ends_with('/') && !absolute.ends_with('/') {
        absolute.push('/');
    } else if path.ends_with("/.") {
        if absolute != "/" {
            absolute.push('/');
        }
        absolute.push('.');
    }
    absolute
}

/// The last component; `/` of the root, `.` of an empty path.
pub(crate) fn base_name(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_directories() {
        assert_eq!(workdir("", "a"), "/a");
        assert_eq!(workdir("/x", "a/../b"), "/x/b");
        assert_eq!(workdir("/x", "/y//z/"), "/y//z/");
        assert_eq!(workdir("/x", ".."), "/");
    }

    #[test]
    fn destinations() {
        for (dir, path, want) in [
            ("/", ".", "/"),
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/w", "a", "/w/a"),
            ("/w", "a/", "/w/a/"),
            ("/w", "a/.", "/w/a/."),
            ("/w", "/a/../b/", "/b/"),
            ("/w", "/", "/"),
            ("", "../../x", "/x"),
        ] {
            assert_eq!(destination(dir, path), want, "{dir} {path}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(base_name("/a/b/"), "b");
        assert_eq!(base_name("/"), "/");
        assert_eq!(base_name("x"), "x");
    }
}
