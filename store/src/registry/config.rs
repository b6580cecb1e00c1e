//! Where images come from: mirrors, plain HTTP, certificates.
//!
//! Two formats are understood, and may be given together: `registries.conf` of the containers
//! tools (version 2) and the `registry` tables of `buildkitd.toml`. Text becomes [`Hosts`] once;
//! [`Hosts::endpoints`] then answers, for a name, which hosts to ask in which order. Mirrors of
//! `buildkitd.toml` come first, then those of `registries.conf`, then the registry itself.
//!
//! What neither file says: a registry at `localhost` or a loopback address is spoken to by plain
//! HTTP, any other by HTTPS only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::config_file::{
    BuildkitHost, PullFrom, Rule, at, drop_ins, parse_buildkit, parse_containers, pick,
    strip_scheme,
};
use super::error::{ErrorKind, RegistryError};
use crate::reference::{Reference, host_of_domain};

/// What to do with image names before asking a registry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hosts {
    /// From `buildkitd.toml`, by host.
    buildkit: BTreeMap<String, BuildkitHost>,
    /// From `registries.conf`, in order of the file.
    rules: Vec<Rule>,
    /// Directories with one directory of certificates per host.
    certificate_dirs: Vec<PathBuf>,
    /// `unqualified-search-registries`; recorded, names are always completed with Docker Hub.
    search: Vec<String>,
}

/// How TLS connections to a host are made.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct TlsSettings {
    /// Accept any certificate.
    pub insecure: bool,
    /// Files of further certificate authorities, PEM.
    pub authorities: Vec<PathBuf>,
    /// Files of a private key and its certificate, PEM.
    pub key_pairs: Vec<(PathBuf, PathBuf)>,
    /// Directories with `*.crt` (authorities) and `*.cert` beside `*.key` (key pairs).
    pub directories: Vec<PathBuf>,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP in TLS.
    Https,
}

impl Scheme {
    /// As in an address.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// One place to ask for a repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// The registry as people write it (`docker.io`): the key of credentials.
    pub domain: String,
    /// Host and port to connect to.
    pub host: String,
    /// The repository on that host.
    pub path: String,
    /// The registry to name in the `ns` parameter, for mirrors that serve several.
    pub namespace: Option<String>,
    /// What to try, in order; at least one.
    pub schemes: Vec<Scheme>,
    /// How to make TLS connections.
    pub tls: TlsSettings,
}

/// What an image is wanted for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// Mirrors may answer.
    Pull,
    /// Only the registry itself will do.
    Push,
}

/// Paths of configuration files; a file that does not exist is no fault unless it was named by
/// the user.
#[derive(Clone, Debug, Default)]
pub struct ConfigPaths {
    /// Named by the user (`$RBUILD_MIRRORS`), in the syntax of `buildkitd.toml`.
    pub buildkit: Option<PathBuf>,
    /// Named by the user (`$CONTAINERS_REGISTRIES_CONF`).
    pub containers: Option<PathBuf>,
    /// Tried in order where `buildkit` is not given; the first that exists counts.
    pub buildkit_defaults: Vec<PathBuf>,
    /// Tried in order where `containers` is not given; the first that exists counts.
    pub containers_defaults: Vec<PathBuf>,
    /// Directories with further `*.conf` files for the containers tools, read after the default
    /// file, in order of their names; not where `containers` is given.
    pub containers_drop_ins: Vec<PathBuf>,
    /// `/etc/docker/certs.d` and the like.
    pub certificate_dirs: Vec<PathBuf>,
}

impl ConfigPaths {
    /// Where the tools that these files belong to look for them; `config_home` is
    /// `$XDG_CONFIG_HOME` or `~/.config`. The user's own file goes before the system's.
    pub fn standard(config_home: Option<&Path>) -> Self {
        let places = |below: &str| {
            let own = config_home.map(|it| it.join(below));
            own.into_iter().chain([Path::new("/etc").join(below)]).collect::<Vec<_>>()
        };
        Self {
            buildkit: None,
            containers: None,
            buildkit_defaults: places("buildkit/buildkitd.toml"),
            containers_defaults: places("containers/registries.conf"),
            // The user's own come last, so that they count.
            containers_drop_ins: places("containers/registries.conf.d").into_iter().rev().collect(),
            certificate_dirs: places("containers/certs.d")
                .into_iter()
                .chain(places("docker/certs.d"))
                .collect(),
        }
    }
}

impl Hosts {
    /// Reads the files that `paths` name.
    ///
    /// # Errors
    ///
    /// If one cannot be read or is not in its format.
    pub fn load(paths: &ConfigPaths) -> Result<Self, RegistryError> {
        let mut hosts =
            Self { certificate_dirs: paths.certificate_dirs.clone(), ..Self::default() };
        if let Some((path, text)) = pick(paths.buildkit.as_ref(), &paths.buildkit_defaults)? {
            hosts.add_buildkit(&text).map_err(|it| at(it, &path))?;
        }
        if let Some((path, text)) = pick(paths.containers.as_ref(), &paths.containers_defaults)? {
            hosts.add_containers(&text).map_err(|it| at(it, &path))?;
        }
        if paths.containers.is_none() {
            for (path, text) in drop_ins(&paths.containers_drop_ins)? {
                hosts.add_containers(&text).map_err(|it| at(it, &path))?;
            }
        }
        Ok(hosts)
    }

    /// Adds the registries of a `buildkitd.toml`. Its other tables are not looked at.
    ///
    /// # Errors
    ///
    /// If `text` is not in that format.
    pub fn add_buildkit(&mut self, text: &str) -> Result<(), RegistryError> {
        self.buildkit.extend(parse_buildkit(text)?);
        Ok(())
    }

    /// Adds the registries of a `registries.conf`, version 2. What is said again replaces what was
    /// said before.
    ///
    /// # Errors
    ///
    /// If `text` is not in that format.
    pub fn add_containers(&mut self, text: &str) -> Result<(), RegistryError> {
        let (rules, search) = parse_containers(text)?;
        for rule in rules {
            self.rules.retain(|it| it.prefix != rule.prefix);
            self.rules.push(rule);
        }
        if !search.is_empty() {
            self.search = search;
        }
        Ok(())
    }

    /// The registries to be searched for short names, as `registries.conf` gives them.
    pub fn search_registries(&self) -> &[String] {
        &self.search
    }

    /// The places to ask for `reference`, in order; at least one.
    ///
    /// # Errors
    ///
    /// If the configuration blocks the registry.
    pub fn endpoints(
        &self,
        reference: &Reference,
        purpose: Purpose,
    ) -> Result<Vec<Endpoint>, RegistryError> {
        let mut found = Vec::new();
        let rule = self.rule(reference);
        if rule.is_some_and(|it| it.blocked) {
            return Err(RegistryError::new(
                ErrorKind::Config,
                format!("registries.conf blocks {}", reference.repository()),
            ));
        }
        if purpose == Purpose::Pull {
            self.add_mirrors(reference, rule, &mut found);
        }
        let name = reference.repository();
        let moved = rule
            .filter(|_| purpose == Purpose::Pull)
            .and_then(|it| relocate(&name, &it.prefix, it.location.as_deref()?));
        let name = moved.unwrap_or(name);
        let insecure = rule.is_some_and(|it| it.insecure);
        found.push(self.endpoint(&name, None, insecure));
        let mut unique: Vec<Endpoint> = Vec::with_capacity(found.len());
        for endpoint in found {
            if !unique.iter().any(|it| (&it.host, &it.path) == (&endpoint.host, &endpoint.path)) {
                unique.push(endpoint);
            }
        }
        Ok(unique)
    }

    fn add_mirrors(&self, reference: &Reference, rule: Option<&Rule>, found: &mut Vec<Endpoint>) {
        let domain = reference.domain();
        let own = self.buildkit.get(domain).or_else(|| self.buildkit.get(reference.host()));
        for mirror in own.iter().flat_map(|it| &it.mirrors) {
            let mirror = strip_scheme(mirror).trim_end_matches('/');
            let name = format!("{mirror}/{}", reference.path());
            found.push(self.endpoint(&name, Some(domain.to_owned()), false));
        }
        let by_digest = reference.digest().is_some();
        for mirror in rule.iter().flat_map(|it| &it.mirrors) {
            let serves = match mirror.pull {
                PullFrom::All => true,
                PullFrom::DigestOnly => by_digest,
                PullFrom::TagOnly => !by_digest,
            };
            let prefix = rule.map_or("", |it| it.prefix.as_str());
            if serves
                && let Some(name) = relocate(&reference.repository(), prefix, &mirror.location)
            {
                found.push(self.endpoint(&name, None, mirror.insecure));
            }
        }
    }

    /// The rule with the longest prefix that fits.
    fn rule(&self, reference: &Reference) -> Option<&Rule> {
        let name = reference.repository();
        self.rules
            .iter()
            .filter(|it| matched(&name, &it.prefix).is_some())
            .max_by_key(|it| it.prefix.len())
    }

    /// `name` is a host with a path below it.
    fn endpoint(&self, name: &str, namespace: Option<String>, insecure: bool) -> Endpoint {
        let (domain, path) = name.split_once('/').unwrap_or((name, ""));
        let host = host_of_domain(domain);
        let settings = self.buildkit.get(domain).or_else(|| self.buildkit.get(host));
        let settings = settings.cloned().unwrap_or_default();
        let local_rule = self.rules.iter().any(|it| it.insecure && it.prefix == domain);
        let insecure = settings.insecure.unwrap_or(insecure || local_rule);
        let schemes = match (settings.http, is_local(host), insecure) {
            (Some(true), _, false) => vec![Scheme::Http],
            (Some(true), _, true) => vec![Scheme::Http, Scheme::Https],
            (Some(false), _, _) => vec![Scheme::Https],
            (None, true, false) => vec![Scheme::Http],
            (None, true, true) => vec![Scheme::Http, Scheme::Https],
            (None, false, true) => vec![Scheme::Https, Scheme::Http],
            (None, false, false) => vec![Scheme::Https],
        };
        let certificates = self.certificate_dirs.iter().map(|it| it.join(domain));
        Endpoint {
            domain: domain.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            namespace: namespace.filter(|it| it != domain),
            schemes,
            tls: TlsSettings {
                insecure,
                authorities: settings.ca,
                key_pairs: settings.keypair.into_iter().map(|it| (it.key, it.cert)).collect(),
                directories: settings.tlsconfigdir.into_iter().chain(certificates).collect(),
            },
        }
    }
}

/// Whether `host`, with or without a port, is this machine.
pub fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// The part of `name` after `prefix`, which may be a host, a path below one, or `*.domain`.
fn matched<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    if let Some(suffix) = prefix.strip_prefix('*') {
        let (host, _) = name.split_once('/')?;
        let host_name = host.split(':').next().unwrap_or(host);
        let fits =
            suffix.starts_with('.') && (host.ends_with(suffix) || host_name.ends_with(suffix));
        return fits.then(|| &name[host.len()..]);
    }
    name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `name` with `location` in place of `prefix`.
fn relocate(name: &str, prefix: &str, location: &str) -> Option<String> {
    matched(name, prefix).map(|rest| format!("{location}{rest}"))
}

#[cfg(test)]
mod tests;
