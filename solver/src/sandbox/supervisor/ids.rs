//! Ids that a process believes to have, and the rules by which it may change them. Pure.
//!
//! The rules are those of Linux for a process whose capabilities go with effective user id 0
//! (kernel/sys.c): who is root may become anybody, others only what they are in another role.

/// "Leave it as it is", as the calls have it.
const KEEP: u32 = u32::MAX;

/// One kind of id (user or group) in its four roles.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Roles {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    /// For access to files.
    pub(super) files: u32,
}

impl Roles {
    /// `id` in every role.
    const fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    /// Whether it is root in every role.
    pub(super) const fn is_root_only(&self) -> bool {
        self.real == 0 && self.effective == 0 && self.files == 0
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid(2), setgid(2).
    fn set(self, id: u32, privileged: bool) -> Option<Self> {
        match privileged {
            true => Some(Self::all(id)),
            false if id == self.real || id == self.saved => {
                Some(Self { effective: id, files: id, ..self })
            }
            false => None,
        }
    }

    /// setreuid(2), setregid(2).
    fn set_two(self, real: u32, effective: u32, privileged: bool) -> Option<Self> {
        let mut new = self;
        if real != KEEP {
            if !privileged && real != self.real && real != self.effective {
                return None;
            }
            new.real = real;
        }
        if effective != KEEP {
            if !privileged && !self.has(effective) {
                return None;
            }
            new.effective = effective;
        }
        if real != KEEP || (effective != KEEP && effective != self.real) {
            new.saved = new.effective;
        }
        new.files = new.effective;
        Some(new)
    }

    /// setresuid(2), setresgid(2).
    fn set_three(self, ids: [u32; 3], privileged: bool) -> Option<Self> {
        let allowed = |id: u32| id == KEEP || privileged || self.has(id);
        if !ids.iter().all(|&id| allowed(id)) {
            return None;
        }
        let or = |id: u32, old: u32| if id == KEEP { old } else { id };
        let effective = or(ids[1], self.effective);
        Some(Self {
            real: or(ids[0], self.real),
            effective,
            saved: or(ids[2], self.saved),
            files: effective,
        })
    }

    /// setfsuid(2), setfsgid(2): never fails, and tells the old one.
    fn set_files(self, id: u32, privileged: bool) -> Self {
        if privileged || self.has(id) || id == self.files {
            Self { files: id, ..self }
        } else {
            self
        }
    }
}

/// The ids of a process.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Ids {
    pub(super) user: Roles,
    pub(super) group: Roles,
    pub(super) groups: Vec<u32>,
    /// Whether it keeps its capabilities when it stops being root (`PR_SET_KEEPCAPS`).
    pub(super) keeps_capabilities: bool,
    /// Whether it did.
    pub(super) has_capabilities: bool,
}

/// A change that a process asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    User(u32),
    Group(u32),
    TwoUsers(u32, u32),
    TwoGroups(u32, u32),
    ThreeUsers([u32; 3]),
    ThreeGroups([u32; 3]),
    FileUser(u32),
    FileGroup(u32),
    Groups(Vec<u32>),
}

impl Ids {
    /// Whether it may do what root may.
    pub(super) const fn is_root(&self) -> bool {
        self.user.effective == 0 || self.has_capabilities
    }

    /// Whether it may do with files what root may.
    pub(super) const fn is_root_of_files(&self) -> bool {
        self.user.files == 0
    }

    /// Whether `group` is one of its own.
    pub(super) fn is_in(&self, group: u32) -> bool {
        self.group.files == group || self.groups.contains(&group)
    }

    /// After `change`; none if it may not.
    pub(super) fn after(&self, change: Change) -> Option<Self> {
        let root = self.is_root();
        let mut new = self.clone();
        match change {
            Change::User(id) => new.user = self.user.set(id, root)?,
            Change::Group(id) => new.group = self.group.set(id, root)?,
            Change::TwoUsers(real, effective) => {
                new.user = self.user.set_two(real, effective, root)?;
            }
            Change::TwoGroups(real, effective) => {
                new.group = self.group.set_two(real, effective, root)?;
            }
            Change::ThreeUsers(ids) => new.user = self.user.set_three(ids, root)?,
            Change::ThreeGroups(ids) => new.group = self.group.set_three(ids, root)?,
            Change::FileUser(id) => new.user = self.user.set_files(id, root),
            Change::FileGroup(id) => new.group = self.group.set_files(id, root),
            Change::Groups(groups) if root => new.groups = groups,
            Change::Groups(_) => return None,
        }
        if self.user.has(0) && !new.user.has(0) {
            new.has_capabilities = self.keeps_capabilities;
        }
        Some(new)
    }

    /// After it executes a program that belongs to `owner` where that has the set-user-id bit, and
    /// to `group` where that has the set-group-id bit.
    pub(super) fn after_exec(&self, owner: Option<u32>, group: Option<u32>) -> Self {
        let start = |roles: Roles, id: Option<u32>| {
            let effective = id.unwrap_or(roles.effective);
            Roles { effective, saved: effective, files: effective, ..roles }
        };
        Self {
            user: start(self.user, owner),
            group: start(self.group, group),
            groups: self.groups.clone(),
            keeps_capabilities: false,
            has_capabilities: false,
        }
    }

    /// Whether it may do `wanted` (a digit of a mode) with a file of these owners and this mode.
    pub(super) fn may(&self, wanted: u32, uid: u32, gid: u32, mode: u32) -> bool {
        if self.is_root_of_files() {
            return true;
        }
        let shift = match () {
            () if self.user.files == uid => 6,
            () if self.is_in(gid) => 3,
            () => 0,
        };
        mode >> shift & wanted == wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: u32) -> Ids {
        let roles = Roles::all(id);
        Ids { user: roles, group: roles, groups: vec![id], ..Ids::default() }
    }

    #[test]
    fn root_becomes_anybody_and_not_back() {
        let ids = Ids::default().after(Change::Groups(vec![5, 6])).unwrap();
        let ids = ids.after(Change::Group(5)).unwrap().after(Change::User(7)).unwrap();
        assert_eq!((ids.user, ids.group), (Roles::all(7), Roles::all(5)));
        assert_eq!(ids.after(Change::User(0)), None);
        assert_eq!(ids.after(Change::Groups(vec![])), None);
        assert_eq!(ids.after(Change::User(7)), Some(ids.clone()));
    }

    #[test]
    fn who_only_changes_the_effective_id_can_go_back() {
        let away = Ids::default().after(Change::ThreeUsers([KEEP, 7, KEEP])).unwrap();
        assert!(!away.is_root() && !away.is_root_of_files());
        assert_eq!(away.after(Change::ThreeUsers([8, KEEP, KEEP])), None);
        let back = away.after(Change::TwoUsers(KEEP, 0)).unwrap();
        assert_eq!(back, Ids::default());
    }

    #[test]
    fn the_saved_id_follows_where_linux_has_it_follow() {
        let ids = Ids::default().after(Change::TwoUsers(5, 6)).unwrap();
        assert_eq!(ids.user, Roles { real: 5, effective: 6, saved: 6, files: 6 });
        let swapped = ids.after(Change::TwoUsers(6, 5)).unwrap();
        assert_eq!(swapped.user, Roles { real: 6, effective: 5, saved: 5, files: 5 });
    }

    #[test]
    fn ids_for_files() {
        let ids = Ids::default().after(Change::FileUser(9)).unwrap();
        assert!(ids.is_root() && !ids.is_root_of_files());
        let ids = user(9).after(Change::FileUser(8)).unwrap();
        assert_eq!(ids.user.files, 9);
    }

    #[test]
    fn who_keeps_capabilities_changes_its_groups_last() {
        let root = Ids { keeps_capabilities: true, ..Ids::default() };
        let away = root.after(Change::ThreeUsers([6, 6, 6])).unwrap();
        assert!(!away.is_root_of_files());
        let ids = away.after(Change::ThreeGroups([12; 3])).unwrap();
        let ids = ids.after(Change::Groups(vec![12])).unwrap();
        assert_eq!(
            ids.after_exec(None, None),
            Ids { groups: vec![12], ..Ids { group: Roles::all(12), ..user(6) } }
        );
        assert_eq!(ids.after_exec(None, None).after(Change::User(0)), None);
    }

    #[test]
    fn set_user_id_programs() {
        let ids = user(9).after_exec(Some(0), None);
        assert_eq!(ids.user, Roles { real: 9, effective: 0, saved: 0, files: 0 });
        assert!(ids.is_root());
        assert_eq!(user(9).after_exec(None, None), user(9));
    }

    #[test]
    fn modes() {
        assert!(user(9).may(2, 9, 0, 0o200));
        assert!(!user(9).may(2, 9, 0, 0o022), "the first class that fits decides");
        assert!(user(9).may(3, 1, 9, 0o030));
        assert!(!user(9).may(3, 1, 1, 0o771));
        assert!(Ids::default().may(7, 1, 1, 0));
    }
}
