//! Who runs a step: `USER` and the step's own `/etc/passwd` and `/etc/group`. Pure.
//!
//! The rules are those of BuildKit and runc: two numbers need no look-up and have no supplementary
//! groups; otherwise the first matching line wins, a number that is not listed is still a user, and
//! supplementary groups belong to the user only where the group is not named.

use std::collections::BTreeSet;

/// Ids of a process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one first.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// Why `USER` has no identity.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdentityError {
    /// A name that is not in `/etc/passwd`.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// A name that is not in `/etc/group`.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    /// A number that is not an id.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
}

/// Largest id that may be given as a number.
const MAX_ID: u32 = i32::MAX as u32;

/// The identity that `user` (`name`, `uid`, `user:group`; empty is root) means.
///
/// # Errors
///
/// A name that is not listed, or a number out of range.
pub fn identity(user: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, IdentityError> {
    if let Some((Ok(uid), Ok(gid))) = user.split_once(':').map(|(u, g)| (u.parse(), g.parse())) {
        let home = home(passwd, uid);
        return Ok(Identity { uid, gid, groups: vec![named(group, user).unwrap_or(gid)], home });
    }
    let asked = if user.is_empty() { "0" } else { user };
    match look_up(asked, passwd, group) {
        // Root needs no entry.
        Err(_) if user.is_empty() => {
            Ok(Identity { uid: 0, gid: 0, groups: vec![0], home: home(passwd, 0) })
        }
        other => other,
    }
}

/// The number of the group whose name is the part of `user` after the colon.
fn named(group: &[u8], user: &str) -> Option<u32> {
    let (_, name) = user.split_once(':')?;
    lines(group).map(Group::parse).find(|it| it.name == name.as_bytes()).map(|it| it.gid)
}

fn look_up(user: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, IdentityError> {
    let (user_part, group_part) = user.split_once(':').unwrap_or((user, ""));
    let number: Option<i64> = user_part.parse().ok();
    let found = lines(passwd).map(User::parse).find(|it| match number {
        _ if user_part.is_empty() => it.uid == 0,
        Some(number) => i64::from(it.uid) == number,
        None => it.name == user_part.as_bytes(),
    });
    let (uid, mut gid, name) = match (&found, number) {
        (Some(found), _) => (found.uid, found.gid, found.name),
        (None, Some(number)) => (checked(number)?, 0, &b""[..]),
        (None, None) if user_part.is_empty() => (0, 0, &b""[..]),
        (None, None) => return Err(IdentityError::User(user_part.to_owned())),
    };
    let mut supplementary = BTreeSet::new();
    if !group_part.is_empty() {
        let number: Option<i64> = group_part.parse().ok();
        let found = lines(group).map(Group::parse).find(|it| match number {
            Some(number) => i64::from(it.gid) == number,
            None => it.name == group_part.as_bytes(),
        });
        gid = match (found, number) {
            (Some(found), _) => found.gid,
            (None, Some(number)) => checked(number)?,
            (None, None) => return Err(IdentityError::Group(group_part.to_owned())),
        };
        // BuildKit looks the group up a second time, and then as a name even if it is a number.
        let groups = vec![named(group, user).unwrap_or(gid)];
        return Ok(Identity { uid, gid, groups, home: home(passwd, uid) });
    } else if !name.is_empty() {
        let member = |it: &Group<'_>| it.members.split(|&byte| byte == b',').any(|it| it == name);
        supplementary.extend(lines(group).map(Group::parse).filter(member).map(|it| it.gid));
    }
    supplementary.remove(&gid);
    let groups = std::iter::once(gid).chain(supplementary).collect();
    Ok(Identity { uid, gid, groups, home: home(passwd, uid) })
}

fn checked(number: i64) -> Result<u32, IdentityError> {
    u32::try_from(number).ok().filter(|&id| id <= MAX_ID).ok_or(IdentityError::Range)
}

/// The home directory of `uid`; `/` if it has none.
fn home(passwd: &[u8], uid: u32) -> String {
    let found = lines(passwd).map(User::parse).find(|it| it.uid == uid);
    let home = found.map_or(String::new(), |it| String::from_utf8_lossy(it.home).into_owned());
    if home.is_empty() { "/".to_owned() } else { home }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|it| !it.is_empty())
}

struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> User<'a> {
    /// `name:password:uid:gid:gecos:home:shell`; what is missing is empty or 0.
    fn parse(line: &'a [u8]) -> Self {
        let mut fields = line.split(|&byte| byte == b':');
        let mut next = || fields.next().unwrap_or_default();
        let name = next();
        next();
        let (uid, gid) = (id(next()), id(next()));
        next();
        Self { name, uid, gid, home: next() }
    }
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl<'a> Group<'a> {
    /// `name:password:gid:members`.
    fn parse(line: &'a [u8]) -> Self {
        let mut fields = line.split(|&byte| byte == b':');
        let mut next = || fields.next().unwrap_or_default();
        let name = next();
        next();
        Self { name, gid: id(next()), members: next() }
    }
}

fn id(field: &[u8]) -> u32 {
    std::str::from_utf8(field).ok().and_then(|it| it.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        daemon:x:1:1::/:/bin/false\n\napp:x:1000:1001:App:/home/app:/bin/sh\nodd:x:77\n";
    const GROUP: &[u8] =
        b"root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\napp:x:1001:app\n88:x:4002:\n";

    #[track_caller]
    fn check(user: &str, expect: &str) {
        let text = match identity(user, PASSWD, GROUP) {
            Ok(it) => format!("{}:{} {:?} {}", it.uid, it.gid, it.groups, it.home),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expect, "{user}");
    }

    #[test]
    fn names_and_numbers() {
        check("", "0:0 [0, 10] /root");
        check("root", "0:0 [0, 10] /root");
        check("app", "1000:1001 [1001, 10, 50] /home/app");
        check("1000", "1000:1001 [1001, 10, 50] /home/app");
        check("app:staff", "1000:50 [50] /home/app");
        check("app:7", "1000:7 [7] /home/app");
        check("1000:1001", "1000:1001 [1001] /home/app");
        check("4242", "4242:0 [0] /");
        check("4242:wheel", "4242:10 [10] /");
        check("odd", "77:0 [0] /");
        check(":staff", "0:50 [50] /root");
        // A second look takes a number for a name.
        check("app:88", "1000:88 [4002] /home/app");
        check("77:88", "77:88 [4002] /");
    }

    #[test]
    fn what_is_not_listed() {
        check("nobody", "unable to find user nobody: no matching entries in passwd file");
        check("app:none", "unable to find group none: no matching entries in group file");
        check("4294967295", "uids and gids must be in range 0-2147483647");
        check("-1", "uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn an_image_without_files_has_root() {
        let root = Identity { uid: 0, gid: 0, groups: vec![0], home: "/".into() };
        assert_eq!(identity("", b"", b"").unwrap(), root);
        assert_eq!(identity("0", b"", b"").unwrap(), root);
    }
}
