//! How a step is held, and which of the ways are wanted. Pure.

use serde::{Deserialize, Serialize};

/// `--isolation`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Wanted {
    /// The strongest rung that the host allows.
    #[default]
    Auto,
    /// That rung; an error where the host refuses it.
    Only(Rung),
    /// The strongest rung that the host allows, but none that is weaker than this.
    AtLeast(Rung),
}

impl Wanted {
    /// The rungs to try, the strongest first.
    pub fn rungs(self) -> impl Iterator<Item = Rung> {
        let is_wanted = move |rung: &Rung| match self {
            Self::Auto => true,
            Self::Only(only) => *rung == only,
            Self::AtLeast(least) => *rung <= least,
        };
        Rung::ALL.into_iter().filter(is_wanted)
    }
}

/// How a step is held, the strongest way first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Rung {
    /// A user namespace with a range of ids.
    Userns,
    /// A user namespace with one id; all others are pretended.
    UsernsSingle,
    /// No namespace: a directory as root, and a fence around it.
    Chroot,
}

impl Rung {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Userns, Self::UsernsSingle, Self::Chroot];

    /// As `--isolation` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Userns => "userns",
            Self::UsernsSingle => "userns-single",
            Self::Chroot => "chroot",
        }
    }
}
