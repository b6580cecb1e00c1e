//! Resource limits of a step: Docker's names, the host's bounds.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// A resource limit by its Linux number.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// What the process meets; all ones means no limit.
    pub soft: u64,
    /// How far it may raise that.
    pub hard: u64,
}

/// Why a limit is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LimitError {
    /// No such name.
    #[error("invalid ulimit type: `{0}`")]
    Unknown(String),
    /// The soft limit is above the hard one.
    #[error("ulimit `{name}`: soft limit {soft} is above hard limit {hard}")]
    Order {
        /// Which.
        name: String,
        /// Soft limit.
        soft: i64,
        /// Hard limit.
        hard: i64,
    },
}

/// Names as in `docker run --ulimit`, with the kernel's numbers (asm-generic/resource.h, which
/// x86-64, aarch64 and riscv64 share).
const NAMES: [(&str, u32); 16] = [
    ("cpu", 0),
    ("fsize", 1),
    ("data", 2),
    ("stack", 3),
    ("core", 4),
    ("rss", 5),
    ("nproc", 6),
    ("nofile", 7),
    ("memlock", 8),
    ("as", 9),
    ("locks", 10),
    ("sigpending", 11),
    ("msgqueue", 12),
    ("nice", 13),
    ("rtprio", 14),
    ("rttime", 15),
];

const NOFILE: u32 = 7;

/// The open-file limits of a step for which nothing else is asked: programs that loop over all
/// possible descriptors stay fast, those that need many may raise it.
const DEFAULT_NOFILE: (u64, u64) = (1024, 1_048_576);

/// The limits of a step that asks for `asked` (name, soft, hard; negative means none).
///
/// # Errors
///
/// An unknown name, or a soft limit above the hard one.
pub fn limits(asked: &[(String, i64, i64)]) -> Result<Vec<Limit>, LimitError> {
    let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let (soft, hard) = DEFAULT_NOFILE;
    let mut all = vec![Limit { resource: NOFILE, soft, hard }];
    for (name, soft, hard) in asked {
        let known = NAMES.iter().find(|(it, _)| it == name);
        let &(_, resource) = known.ok_or_else(|| LimitError::Unknown(name.clone()))?;
        let limit = Limit { resource, soft: number(*soft), hard: number(*hard) };
        if limit.soft > limit.hard {
            return Err(LimitError::Order { name: name.clone(), soft: *soft, hard: *hard });
        }
        all.retain(|it| it.resource != resource);
        all.push(limit);
    }
    Ok(all)
}

/// `limit` as far as a process whose own hard limit is `ours` can grant it: raising that needs a
/// privilege that we do not have.
pub fn clamp(limit: Limit, ours: u64) -> Limit {
    let hard = limit.hard.min(ours);
    Limit { resource: limit.resource, soft: limit.soft.min(hard), hard }
}

/// How many files a process of ours can have open: [`raise_open_files`] makes use of it.
pub fn open_files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Lets this process, and those it starts, open as many files as the host allows at all. The limit
/// that most hosts set, 1,024, is for programs that use `select(2)`; steps get a limit of their own.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // With what there is, fewer steps run at the same time.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_overrides() {
        let nofile = Limit { resource: 7, soft: 1024, hard: 1_048_576 };
        assert_eq!(limits(&[]).unwrap(), [nofile]);
        let asked = [("nofile".into(), 5, 10), ("core".into(), -1, -1)];
        let expect = [
            Limit { resource: 7, soft: 5, hard: 10 },
            Limit { resource: 4, soft: u64::MAX, hard: u64::MAX },
        ];
        assert_eq!(limits(&asked).unwrap(), expect);
    }

    #[test]
    fn refusals_name_the_limit() {
        let error = limits(&[("files".into(), 1, 1)]).unwrap_err();
        assert_eq!(error.to_string(), "invalid ulimit type: `files`");
        let error = limits(&[("core".into(), -1, 5)]).unwrap_err();
        assert_eq!(error.to_string(), "ulimit `core`: soft limit -1 is above hard limit 5");
    }

    #[test]
    fn never_above_our_own() {
        let nofile = Limit { resource: 7, soft: 1024, hard: 1_048_576 };
        assert_eq!(clamp(nofile, 4096), Limit { resource: 7, soft: 1024, hard: 4096 });
        assert_eq!(clamp(nofile, 512), Limit { resource: 7, soft: 512, hard: 512 });
        assert_eq!(clamp(nofile, u64::MAX), nofile);
    }
}
