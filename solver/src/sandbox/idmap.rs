//! Which ids a user namespace gets. Pure.
//!
//! A map is lines of `inside outside count`, as `/proc/PID/uid_map` has them.

use std::fmt::Write as _;

/// A run of ids.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// First id inside of the namespace.
    pub inside: u32,
    /// First id outside of it.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Runs of ids a user may give to others, as `/etc/subuid` and `/etc/subgid` have them
/// (`NAME-OR-UID:FIRST:COUNT`): those of `name` and of `uid`, in the file's order.
pub fn subordinate(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let mut ranges = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(owner), Some(first), Some(count)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if owner != uid && (owner != name || name.is_empty()) {
            continue;
        }
        if let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>())
            && count > 0
            && first.checked_add(count).is_some()
            && !ranges.contains(&(first, count))
        {
            ranges.push((first, count));
        }
    }
    ranges
}

/// The first id from which on nobody has any: of the texts of `/etc/subuid` and `/etc/subgid`.
pub fn free(texts: [&str; 2]) -> u32 {
    let mut free = FIRST_SUBORDINATE;
    for line in texts.iter().flat_map(|it| it.lines()) {
        let mut numbers = line.split(':').skip(1).map(|it| it.trim().parse::<u32>());
        if let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.next()) {
            free = free.max(first.saturating_add(count));
        }
    }
    free
}

/// Where distributions begin (`SUB_UID_MIN` of login.defs).
const FIRST_SUBORDINATE: u32 = 100_000;

/// The command that gives a user a range that is nobody's yet; of the same texts as [`free`]. Who has
/// no `name` is written into the files by number.
pub fn range_command(texts: [&str; 2], name: &str, uid: u32) -> String {
    let first = free(texts);
    let last = first.saturating_add(MIN_RANGE);
    if name.is_empty() {
        return format!("echo {uid}:{first}:65536 | tee -a /etc/subuid /etc/subgid");
    }
    format!("usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {name}")
}

/// The fewest subordinate ids with which images work: Debian's `nogroup` and `nobody` are 65534.
pub const MIN_RANGE: u32 = 65_535;

/// The map of a user with subordinate ids: the user is root inside, and the rest follows.
pub fn ranges(id: u32, subordinate: &[(u32, u32)]) -> Vec<Extent> {
    let mut map = vec![Extent { inside: 0, outside: id, count: 1 }];
    let mut inside = 1_u32;
    for &(outside, count) in subordinate {
        let count = count.min(u32::MAX - inside);
        map.push(Extent { inside, outside, count });
        inside += count;
    }
    map
}

/// The map that changes nothing, over all ids that the caller's own map (the text of
/// `/proc/self/uid_map`) has.
pub fn identity(own: &str) -> Vec<Extent> {
    let mut map = Vec::new();
    for line in own.lines() {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        if let [inside, _, count] = numbers[..] {
            map.push(Extent { inside, outside: inside, count });
        }
    }
    map
}

/// How many ids a map has.
pub fn ids(map: &[Extent]) -> u64 {
    map.iter().map(|it| u64::from(it.count)).sum()
}

/// The map of one id, which is root inside.
pub fn single(id: u32) -> Vec<Extent> {
    vec![Extent { inside: 0, outside: id, count: 1 }]
}

/// As it is written to `/proc/PID/uid_map`.
pub fn text(map: &[Extent]) -> String {
    let mut text = String::new();
    for Extent { inside, outside, count } in map {
        let _ = writeln!(text, "{inside} {outside} {count}");
    }
    text
}

/// As arguments of newuidmap(1), after the process number.
pub fn arguments(map: &[Extent]) -> Vec<String> {
    map.iter().flat_map(|it| [it.inside, it.outside, it.count]).map(|it| it.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# users\nroot:100000:65536\ndev:165536:65536\n1001:300000:1000\n\
        dev:bad:1\ndev:4294967295:2\ndev:400000:0\ndev:165536:65536\nx\n";

    #[test]
    fn entries_by_name_and_number() {
        assert_eq!(subordinate(FILE, "dev", 1001), [(165_536, 65_536), (300_000, 1000)]);
        assert_eq!(subordinate(FILE, "", 1001), [(300_000, 1000)]);
        assert_eq!(subordinate(FILE, "nobody", 65534), []);
    }

    #[test]
    fn a_range_that_is_nobodys() {
        assert_eq!(free(["", ""]), 100_000);
        assert_eq!(free(["a:100000:65536\n#\n", "a:100000:65536\nb:300000:10\n"]), 300_010);
        assert_eq!(
            range_command(["a:100000:65536", ""], "dev", 1),
            "usermod --add-subuids 165536-231071 --add-subgids 165536-231071 dev"
        );
        assert_eq!(
            range_command(["", ""], "", 1500),
            "echo 1500:100000:65536 | tee -a /etc/subuid /etc/subgid"
        );
    }

    #[test]
    fn the_user_comes_first() {
        let map = ranges(1001, &subordinate(FILE, "dev", 1001));
        assert_eq!(text(&map), "0 1001 1\n1 165536 65536\n65537 300000 1000\n");
        assert_eq!(arguments(&map[..2]).join(" "), "0 1001 1 1 165536 65536");
    }

    #[test]
    fn root_keeps_its_ids() {
        assert_eq!(text(&identity("         0          0 4294967295\n")), "0 0 4294967295\n");
        assert_eq!(text(&identity("0 200000 65536\n70000 5 1")), "0 0 65536\n70000 70000 1\n");
        assert_eq!(text(&single(1001)), "0 1001 1\n");
        assert_eq!(ids(&identity("0 200000 65536\n70000 5 1")), 65_537);
    }
}
