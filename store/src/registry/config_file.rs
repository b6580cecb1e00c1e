//! The files that configure registries, as text: `buildkitd.toml` and `registries.conf`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{ErrorKind, RegistryError};

/// Largest configuration file that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Most files that are read of one directory.
const MAX_DROP_INS: usize = 256;

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub(super) struct BuildkitHost {
    #[serde(default)]
    pub(super) mirrors: Vec<String>,
    pub(super) http: Option<bool>,
    pub(super) insecure: Option<bool>,
    #[serde(default)]
    pub(super) ca: Vec<PathBuf>,
    #[serde(default)]
    pub(super) keypair: Vec<KeyPair>,
    #[serde(default)]
    pub(super) tlsconfigdir: Vec<PathBuf>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(super) struct KeyPair {
    pub(super) key: PathBuf,
    pub(super) cert: PathBuf,
}

#[derive(Deserialize)]
pub(super) struct BuildkitFile {
    #[serde(default)]
    pub(super) registry: BTreeMap<String, BuildkitHost>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ContainersFile {
    #[serde(default)]
    pub(super) unqualified_search_registries: Vec<String>,
    #[serde(default)]
    pub(super) registry: Vec<ContainersRegistry>,
    /// Version 1 of the format.
    pub(super) registries: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ContainersRegistry {
    pub(super) prefix: Option<String>,
    pub(super) location: Option<String>,
    #[serde(default)]
    pub(super) insecure: bool,
    #[serde(default)]
    pub(super) blocked: bool,
    #[serde(default)]
    pub(super) mirror_by_digest_only: bool,
    #[serde(default)]
    pub(super) mirror: Vec<ContainersMirror>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ContainersMirror {
    pub(super) location: String,
    #[serde(default)]
    pub(super) insecure: bool,
    pub(super) pull_from_mirror: Option<PullFrom>,
}

/// Which names a mirror may answer for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PullFrom {
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rule {
    pub(super) prefix: String,
    pub(super) location: Option<String>,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mirror {
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) pull: PullFrom,
}

/// The registries of a `buildkitd.toml`. Its other tables are not looked at.
pub(super) fn parse_buildkit(text: &str) -> Result<BTreeMap<String, BuildkitHost>, RegistryError> {
    let file: BuildkitFile = toml::from_str(text).map_err(|it| bad_toml(&it))?;
    Ok(file.registry)
}

/// The rules and the search list of a `registries.conf`, version 2.
pub(super) fn parse_containers(text: &str) -> Result<(Vec<Rule>, Vec<String>), RegistryError> {
    let file: ContainersFile = toml::from_str(text).map_err(|it| bad_toml(&it))?;
    if file.registries.is_some() {
        return Err(RegistryError::new(
            ErrorKind::Config,
            "table `registries` is version 1 of the format, which is not supported",
        )
        .with_hint("write `[[registry]]` tables as in containers-registries.conf(5)"));
    }
    let rules = file.registry.into_iter().map(rule).collect::<Result<_, _>>()?;
    Ok((rules, file.unqualified_search_registries))
}

fn rule(it: ContainersRegistry) -> Result<Rule, RegistryError> {
    let clean = |text: String| strip_scheme(&text).trim_end_matches('/').to_owned();
    let location = it.location.map(clean).filter(|it| !it.is_empty());
    let prefix = it.prefix.map(clean).filter(|it| !it.is_empty());
    let Some(prefix) = prefix.or_else(|| location.clone()) else {
        return Err(RegistryError::new(
            ErrorKind::Config,
            "a `[[registry]]` table has neither `prefix` nor `location`",
        ));
    };
    let by_default = if it.mirror_by_digest_only { PullFrom::DigestOnly } else { PullFrom::All };
    let mirrors = it
        .mirror
        .into_iter()
        .map(|mirror| Mirror {
            location: clean(mirror.location),
            insecure: mirror.insecure,
            pull: mirror.pull_from_mirror.unwrap_or(by_default),
        })
        .collect();
    Ok(Rule { prefix, location, insecure: it.insecure, blocked: it.blocked, mirrors })
}

/// An address without `https://` or `http://`.
pub(super) fn strip_scheme(text: &str) -> &str {
    text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text)
}

/// The file named by the user, or else the first default that exists.
pub(super) fn pick(
    named: Option<&PathBuf>,
    defaults: &[PathBuf],
) -> Result<Option<(PathBuf, String)>, RegistryError> {
    if let Some(path) = named {
        let text = read(path)?.ok_or_else(|| {
            at(RegistryError::new(ErrorKind::Config, "the file does not exist"), path)
        })?;
        return Ok(Some((path.clone(), text)));
    }
    for path in defaults {
        if let Some(text) = read(path)? {
            return Ok(Some((path.clone(), text)));
        }
    }
    Ok(None)
}

/// Whether it was a directory above that refused.
fn is_out_of_reach(error: &std::io::Error, path: &Path) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied && std::fs::symlink_metadata(path).is_err()
}

/// The text of a small file; none if there is no such file, or it is in the home of somebody else, as for
/// who changed the user and not `$HOME`.
pub(crate) fn read(path: &Path) -> Result<Option<String>, RegistryError> {
    use std::io::Read as _;
    let failed = |it| {
        at(RegistryError::new(ErrorKind::Local, "the file cannot be read").with_source(it), path)
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(it)
            if matches!(
                it.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(it) if is_out_of_reach(&it, path) => return Ok(None),
        Err(it) => return Err(failed(it)),
    };
    let mut text = String::new();
    file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        let error = RegistryError::new(
            ErrorKind::Config,
            format!("the file has more than {MAX_CONFIG_BYTES} bytes"),
        );
        return Err(at(error, path));
    }
    Ok(Some(text))
}

pub(crate) fn at(error: RegistryError, path: &Path) -> RegistryError {
    error.doing(format!("use configuration {}", path.display()))
}

fn bad_toml(error: &toml::de::Error) -> RegistryError {
    RegistryError::new(ErrorKind::Config, error.to_string().trim_end().to_owned())
}

/// The `*.conf` files of `directories`, each directory in order of their names.
pub(super) fn drop_ins(directories: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, RegistryError> {
    let mut found = Vec::new();
    for directory in directories {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|it| it.path()).collect();
        paths.retain(|it| it.extension().is_some_and(|it| it == "conf"));
        paths.sort();
        for path in paths.into_iter().take(MAX_DROP_INS) {
            if let Some(text) = read(&path)? {
                found.push((path, text));
            }
        }
    }
    Ok(found)
}
