//! Values of `RUN --mount`.
//!
//! They are read twice: [`check`] where they are written, which finds what does not depend on
//! variables, and [`parse`] where the step is lowered, with variables expanded field by field.

use crate::csv;
use crate::expand::ExpandError;
use crate::suggest::did_you_mean;

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

impl MountType {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// The value of `type=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
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
    /// `env`: name of the variable of a secret, if given; empty means the default name.
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

/// Names of fields that take a value.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Checks what can be checked before variables are known.
pub(super) fn check(value: &str) -> Result<(), MountError> {
    for field in split(value)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        let dollar = value.find('$');
        if key.eq_ignore_ascii_case("from") && dollar.is_some_and(|at| at + 1 < value.len()) {
            let text = format!(
                "'{}' doesn't support variable expansion, define alias stage instead",
                key.to_lowercase()
            );
            return Err(MountError(text));
        }
    }
    Ok(())
}

/// Reads the value of a `--mount` flag; `expand` is applied to the value of each field.
///
/// # Errors
///
/// If a field or its value is unknown, if fields contradict each other, or if `expand` fails.
pub fn parse(
    value: &str,
    expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>,
) -> Result<Mount, MountError> {
    let mut reader = Reader::default();
    for field in split(value)? {
        match field.split_once('=') {
            None => reader.lone(&field)?,
            Some((key, value)) => {
                let value = expand(value).map_err(|error| MountError(error.to_string()))?;
                reader.pair(&key.to_lowercase(), &value, &field)?;
            }
        }
    }
    reader.finish()
}

fn split(value: &str) -> Result<Vec<String>, MountError> {
    csv::fields(value).map_err(|cause| MountError(format!("failed to parse csv mounts: {cause}")))
}

struct Reader {
    mount: Mount,
    /// Whether a field said if the mount is read-only.
    says_read_only: bool,
}

impl Default for Reader {
    fn default() -> Self {
        let mount = Mount {
            kind: MountType::Bind,
            from: String::new(),
            source: String::new(),
            target: String::new(),
            read_only: false,
            size_bytes: 0,
            id: String::new(),
            sharing: None,
            required: false,
            env: None,
            mode: None,
            uid: None,
            gid: None,
        };
        Self { mount, says_read_only: false }
    }
}

impl Reader {
    /// A field without value.
    fn lone(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.set_read_only(true),
            "readwrite" | "rw" => self.set_read_only(false),
            "required" => self.set_required(true)?,
            _ => {
                let text = format!("invalid field '{field}' must be a key=value pair");
                return Err(MountError(text));
            }
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, value: &str, field: &str) -> Result<(), MountError> {
        let invalid = || MountError(format!("invalid value for {key}: {value}"));
        let id = || MountError(format!("invalid value {value} for {key}"));
        match key {
            "type" => self.mount.kind = parse_type(value)?,
            "from" => value.clone_into(&mut self.mount.from),
            "source" | "src" => value.clone_into(&mut self.mount.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.mount.target),
            "readonly" | "ro" => self.set_read_only(parse_bool(value).ok_or_else(invalid)?),
            "readwrite" | "rw" => self.set_read_only(!parse_bool(value).ok_or_else(invalid)?),
            "required" => {
                let required = parse_bool(value).ok_or_else(invalid);
                self.set_required(required?)?;
            }
            "size" => {
                self.only_for(key, &[MountType::Tmpfs])?;
                self.mount.size_bytes = parse_size(value).ok_or_else(invalid)?;
            }
            "id" => value.clone_into(&mut self.mount.id),
            "sharing" => self.mount.sharing = Some(parse_sharing(value)?),
            "mode" => self.mount.mode = Some(parse_number(value, 8).ok_or_else(id)?),
            "uid" => self.mount.uid = Some(parse_number(value, 10).ok_or_else(id)?),
            "gid" => self.mount.gid = Some(parse_number(value, 10).ok_or_else(id)?),
            "env" => self.mount.env = Some(value.to_owned()),
            _ => {
                let suggestion = did_you_mean(key, KEYS);
                return Err(MountError(format!("unexpected key '{key}' in '{field}'{suggestion}")));
            }
        }
        Ok(())
    }

    fn set_read_only(&mut self, read_only: bool) {
        self.mount.read_only = read_only;
        self.says_read_only = true;
    }

    fn set_required(&mut self, required: bool) -> Result<(), MountError> {
        self.only_for("required", &[MountType::Secret, MountType::Ssh])?;
        self.mount.required = required;
        Ok(())
    }

    /// Refuses a field that the type, which must stand before it, does not have.
    fn only_for(&self, key: &str, kinds: &[MountType]) -> Result<(), MountError> {
        if kinds.contains(&self.mount.kind) {
            return Ok(());
        }
        let kind = self.mount.kind.name();
        Err(MountError(format!("unexpected key '{key}' for mount type '{kind}'")))
    }

    fn finish(self) -> Result<Mount, MountError> {
        let Self { mut mount, says_read_only } = self;
        let kind = mount.kind;
        if matches!(kind, MountType::Bind | MountType::Tmpfs) {
            let given = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
            if let Some((name, _)) = given.iter().find(|(_, value)| value.is_some()) {
                let kind = kind.name();
                return Err(MountError(format!("{name} not allowed for \"{kind}\" type mounts")));
            }
        }
        if !says_read_only {
            mount.read_only = !matches!(kind, MountType::Cache | MountType::Tmpfs);
        }
        if kind == MountType::Secret {
            check_secret(&mount)?;
        }
        if mount.sharing.is_some() && kind != MountType::Cache {
            let text = format!("invalid cache sharing set for {} mount", kind.name());
            return Err(MountError(text));
        }
        Ok(mount)
    }
}

fn check_secret(mount: &Mount) -> Result<(), MountError> {
    let error = |text: &str| Err(MountError(text.to_owned()));
    if !mount.from.is_empty() {
        return error("secret mount should not have a from");
    }
    if mount.sharing.is_some() {
        return error("secret mount should not define sharing");
    }
    if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() {
        return error("invalid secret mount. one of source, target required");
    }
    if !mount.source.is_empty() && !mount.id.is_empty() {
        return error("both source and id can't be set");
    }
    Ok(())
}

fn parse_type(value: &str) -> Result<MountType, MountError> {
    let lower = value.to_lowercase();
    MountType::ALL.into_iter().find(|it| it.name() == lower).ok_or_else(|| {
        let suggestion = did_you_mean(value, MountType::ALL.map(MountType::name));
        MountError(format!("unsupported mount type \"{value}\"{suggestion}"))
    })
}

fn parse_sharing(value: &str) -> Result<Sharing, MountError> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let suggestion = did_you_mean(value, ["shared", "private", "locked"]);
            Err(MountError(format!("unsupported sharing value \"{value}\"{suggestion}")))
        }
    }
}

/// A truth value in Go's spellings.
pub(super) fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_number(value: &str, radix: u32) -> Option<u32> {
    let only_digits = value.chars().all(|it| it.is_digit(radix));
    u32::from_str_radix(value, radix).ok().filter(|_| only_digits)
}

/// A size in bytes: a number with `b`, `k`, `m`, `g`, `t`, `p` (powers of 1024), also as `kb`, `kib`.
fn parse_size(value: &str) -> Option<i64> {
    let n_number = value.rfind(|it: char| it.is_ascii_digit() || it == '.')? + 1;
    let (number, unit) = value.split_at(n_number);
    let (number, unit) = (number, unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase());
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let size: f64 = number.parse().ok()?;
    let bytes = size * 1024_f64.powi(power);
    #[expect(clippy::cast_precision_loss, reason = "a bound, not a value")]
    let fits = (0.0..i64::MAX as f64).contains(&bytes);
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    fits.then_some(bytes as i64)
}

/// The stage or image that a mount names, before variables are expanded (they may not stand
/// there).
pub(crate) fn source_name(value: &str) -> Option<String> {
    let fields = csv::fields(value).ok()?;
    let pairs = fields.iter().filter_map(|field| field.split_once('='));
    let (_, name) = pairs.rev().find(|(key, _)| key.eq_ignore_ascii_case("from"))?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fails(value: &str, want: &str) {
        let error = parse(value, &mut |it| Ok(it.to_owned())).unwrap_err();
        assert_eq!(error.0, want, "{value}");
    }

    #[test]
    fn reads_mounts() {
        let expand = &mut |text: &str| Ok(text.replace("$X", "/x"));
        let mount =
            parse("type=cache,\"dst=$X,y\",Sharing=locked,uid=5,mode=0750", expand).unwrap();
        assert_eq!((mount.kind, mount.target.as_str()), (MountType::Cache, "/x,y"));
        assert_eq!((mount.sharing, mount.uid), (Some(Sharing::Locked), Some(5)));
        assert_eq!((mount.mode, mount.read_only), (Some(0o750), false));
        let mount = parse("target=/a,from=b", expand).unwrap();
        assert_eq!((mount.kind, mount.read_only), (MountType::Bind, true));
        assert!(!parse("target=/a,rw", expand).unwrap().read_only);
        assert!(parse("type=secret,id=x,required", expand).unwrap().required);
        assert_eq!(parse("type=tmpfs,size=1.5k", expand).unwrap().size_bytes, 1536);
    }

    #[test]
    fn refuses() {
        fails("typ=bind", "unexpected key 'typ' in 'typ=bind' (did you mean type?)");
        fails("type=bnd", "unsupported mount type \"bnd\" (did you mean bind?)");
        fails("target", "invalid field 'target' must be a key=value pair");
        fails("uid=1", "uid not allowed for \"bind\" type mounts");
        fails("size=1,type=tmpfs", "unexpected key 'size' for mount type 'bind'");
        fails("type=secret", "invalid secret mount. one of source, target required");
        fails("sharing=shared", "invalid cache sharing set for bind mount");
        fails("type=cache,mode=9", "invalid value 9 for mode");
        fails("type=ssh,required=maybe", "invalid value for required: maybe");
        assert!(check("from=$A").is_err());
        assert!(check("from=a$,source=$B").is_ok());
    }
}
