//! Ordinary users and their ranges of subordinate ids.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;
use crate::run::{Failure, Outcome, output, program, run, succeeds};

/// The user whom root's end-to-end tests run rbuild as.
pub(crate) const TEST_USER: &str = "rbuild-test";

/// How many ids a range has: enough for every id that a distribution hands out, and what distributions give.
const RANGE: u64 = 65_536;

/// The lowest id of a range that we choose: where distributions start theirs.
const LOWEST: u64 = 100_000;

/// Makes the test user, with ranges, if it is not there. Only root can.
pub(crate) fn ensure_test_user(host: &Host) -> Outcome {
    if !succeeds(Command::new("id").arg(TEST_USER)) {
        let useradd = program("useradd").unwrap_or_else(|| "useradd".into());
        run(Command::new(useradd).args(["--create-home", "--shell", "/bin/sh", TEST_USER]))?;
    }
    if !ensure_ranges(host, TEST_USER)? {
        println!("`{TEST_USER}` has no subordinate ids: RUN steps of the tests are skipped");
    }
    Ok(())
}

/// A user's ids.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    /// The user's.
    pub(crate) uid: u32,
    /// The user's own group's.
    pub(crate) gid: u32,
}

/// Looks a user up.
pub(crate) fn ids(user: &str) -> Outcome<Ids> {
    let number = |flag: &str| {
        let text = output(Command::new("id").args([flag, user]))?;
        text.parse()
            .map_err(|_| Failure::new(format!("`id {flag} {user}` printed no number: {text}")))
    };
    Ok(Ids { uid: number("-u")?, gid: number("-g")? })
}

/// Makes a folder, and gives it and all in it to a user if one is named.
pub(crate) fn own_folder(path: &Path, user: Option<&Ids>) -> Outcome<PathBuf> {
    std::fs::create_dir_all(path)
        .map_err(|error| Failure::new(format!("could not make `{}`: {error}", path.display())))?;
    if let Some(ids) = user {
        output(Command::new("chown").arg("-R").arg(format!("{}:{}", ids.uid, ids.gid)).arg(path))?;
    }
    Ok(path.to_owned())
}

/// Gives a user a range of subordinate user and group ids if it has none; answers whether it has both in the end.
pub(crate) fn ensure_ranges(host: &Host, user: &str) -> Outcome<bool> {
    for (file, flag) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if has_range(&text, user, &own_id(user)) {
            continue;
        }
        let Some(mut usermod) = host.as_root("usermod") else {
            println!(
                "`{user}` has no range in `{file}`; to add one: sudo usermod {flag} {} {user}",
                free_range(&text)
            );
            return Ok(false);
        };
        run(usermod.args([flag, &free_range(&text), user]))?;
    }
    Ok(true)
}

fn own_id(user: &str) -> String {
    output(Command::new("id").args(["-u", user])).unwrap_or_default()
}

/// Whether the text of a subuid file has a range of useful length for a user, named or by id.
fn has_range(text: &str, user: &str, id: &str) -> bool {
    text.lines().any(|line| {
        let mut fields = line.trim().split(':');
        let (Some(owner), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        (owner == user || owner == id) && count.parse::<u64>().is_ok_and(|count| count >= RANGE)
    })
}

/// A range above all ranges in the text of a subuid file, as `usermod` takes it.
fn free_range(text: &str) -> String {
    let ends = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':').skip(1).map(str::parse::<u64>);
        match (fields.next(), fields.next()) {
            (Some(Ok(first)), Some(Ok(count))) => Some(first.saturating_add(count)),
            _ => None,
        }
    });
    let first = ends.max().unwrap_or(LOWEST).max(LOWEST);
    format!("{first}-{}", first + RANGE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_belongs_to_a_name_or_an_id() {
        let text = "dev:100000:65536\n1002:165536:65536\nsmall:300000:10\n";
        assert!(has_range(text, "dev", "1001"));
        assert!(has_range(text, "other", "1002"));
        assert!(!has_range(text, "small", "1003"));
        assert!(!has_range("", "dev", "1001"));
    }

    #[test]
    fn a_free_range_lies_above_the_others() {
        assert_eq!(free_range(""), "100000-165535");
        assert_eq!(free_range("dev:100000:65536\nbroken\n"), "165536-231071");
        assert_eq!(free_range("low:10:5\n"), "100000-165535");
    }
}
