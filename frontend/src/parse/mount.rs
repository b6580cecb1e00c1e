//! Values of `RUN --mount`.

/// What kind of mount.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the values of `type=`")]
pub enum MountType {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// How a cache mount is shared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the values of `sharing=`")]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}

/// A mount with all variables expanded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// `type`, `bind` unless given.
    pub kind: MountType,
    /// `from`; empty where not given (so for all texts).
    pub from: String,
    /// `source`, `src`.
    pub source: String,
    /// `target`, `dst`, `destination`.
    pub target: String,
    /// `readonly`, `ro`, `readwrite`, `rw`; where not given, true except for cache and tmpfs.
    pub read_only: bool,
    /// `size` of a tmpfs in bytes; 0 where not given.
    pub size_bytes: i64,
    /// `id`.
    pub id: String,
    /// `sharing`.
    pub sharing: Option<Sharing>,
    /// `required`.
    pub required: bool,
    /// `env`: name of the variable of a secret, if given.
    pub env: Option<String>,
    /// `mode`, octal.
    pub mode: Option<u32>,
    /// `uid`.
    pub uid: Option<u32>,
    /// `gid`.
    pub gid: Option<u32>,
}

/// A mount cannot be understood; the text says why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct MountError(pub String);

/// Reads the value of a `--mount` flag; `expand` is applied to the value of each field.
///
/// # Errors
///
/// If a field or its value is unknown, if fields contradict each other, or if `expand` fails.
pub fn parse(
    value: &str,
    expand: &mut dyn FnMut(&str) -> Result<String, crate::expand::ExpandError>,
) -> Result<Mount, MountError> {
    let expanded = expand(value).map_err(|error| MountError(error.to_string()))?;
    Err(MountError(expanded))
}
