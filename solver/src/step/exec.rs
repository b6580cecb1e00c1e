//! A process: from the operation to the worker's request.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rbuild_store::digest::{Digest, Hasher};

use crate::llb::op::{CacheSharing, ExecOp, Mount, MountKind, NetMode, ProxyEnv, SecurityMode};
use crate::session::Session;
use crate::solve::{ExecSettings, SolveError, SolveErrorKind};
use crate::worker::proto::{
    Chain, ExecMount, ExecRequest, Expected, LayerId, MountSource, Network,
};

/// `PATH` where neither image nor Dockerfile sets one (BuildKit's default).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Host name where none is given (BuildKit's default).
const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Largest value of a secret, in bytes (BuildKit's limit).
const MAX_SECRET: usize = 500 * 1024;

/// A cache mount of a step, before a directory is chosen and locked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CacheMount {
    /// Index into the request's mounts.
    pub mount: usize,
    /// Identity of the directory.
    pub key: Digest,
    /// Who may use it at the same time.
    pub sharing: CacheSharing,
}

/// A request without its output descriptors, and what must be locked before it runs.
#[derive(Debug)]
pub struct PlannedExec {
    /// The request; `stdout` and `stderr` index the two descriptors after `fds`.
    pub request: ExecRequest,
    /// Descriptors of secrets.
    pub fds: Vec<OwnedFd>,
    /// Cache mounts.
    pub caches: Vec<CacheMount>,
    /// Layer that each output is committed as, by output number.
    pub outputs: BTreeMap<usize, OutputLayer>,
}

/// What an output of the step consists of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutputLayer {
    /// The tree below.
    pub base: Chain,
    /// The new layer.
    pub layer: LayerId,
}

/// Makes the request of `op`; `chain` gives the tree of an input, all of whose layers are on disk.
///
/// # Errors
///
/// If a required secret or agent was not offered.
pub fn plan(
    op: &ExecOp,
    chain: &dyn Fn(usize) -> Chain,
    session: &dyn Session,
    settings: &ExecSettings,
    new_layer: &mut dyn FnMut() -> LayerId,
) -> Result<PlannedExec, SolveError> {
    let mut planned = PlannedExec {
        request: request(op, settings),
        fds: Vec::new(),
        caches: Vec::new(),
        outputs: BTreeMap::new(),
    };
    for secret in &op.secret_env {
        let value = session.secret(&secret.id).map_err(SolveError::from)?;
        match value {
            Some(value) => {
                let value = String::from_utf8(value).map_err(|_| {
                    SolveError::user(format!(
                        "secret {}: the value for ${} is not UTF-8",
                        secret.id, secret.name
                    ))
                })?;
                planned.request.env.push(format!("{}={value}", secret.name));
            }
            None if secret.optional => {}
            None => return Err(missing_secret(&secret.id)),
        }
    }
    for mount in &op.mounts {
        add_mount(&mut planned, mount, chain, session, new_layer)?;
    }
    planned.request.stdout = planned.fds.len();
    planned.request.stderr = planned.fds.len() + 1;
    Ok(planned)
}

/// What is known of a process before its inputs are there.
pub fn expected(op: &ExecOp, settings: &ExecSettings) -> Expected {
    let insecure = op.security == SecurityMode::Insecure;
    Expected { network: network(op), insecure, shm_size: settings.shm_size }
}

fn network(op: &ExecOp) -> Network {
    match op.network {
        NetMode::Sandbox => Network::Default,
        NetMode::Host => Network::Host,
        NetMode::None => Network::None,
    }
}

fn request(op: &ExecOp, settings: &ExecSettings) -> ExecRequest {
    let meta = &op.meta;
    let mut env = meta.env.clone();
    if !env.iter().any(|it| it.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    if let Some(proxy) = &meta.proxy_env {
        add_proxies(&mut env, proxy);
    }
    ExecRequest {
        args: meta.args.clone(),
        env,
        cwd: if meta.cwd.is_empty() { "/".to_owned() } else { meta.cwd.clone() },
        user: meta.user.clone(),
        hostname: if meta.hostname.is_empty() {
            DEFAULT_HOSTNAME.to_owned()
        } else {
            meta.hostname.clone()
        },
        extra_hosts: meta.extra_hosts.iter().map(|it| (it.host.clone(), it.ip.clone())).collect(),
        resolv_conf: settings.resolv_conf.clone(),
        ulimits: meta.ulimits.iter().map(|it| (it.name.clone(), it.soft, it.hard)).collect(),
        shm_size: settings.shm_size,
        resources: settings.resources.clone(),
        network: network(op),
        insecure: op.security == SecurityMode::Insecure,
        another: false,
        mounts: Vec::new(),
        remove_stub_parents: meta.remove_mount_stubs_recursive,
        stdout: 0,
        stderr: 0,
    }
}

/// Each proxy in lower and upper case, unless the step sets it itself.
fn add_proxies(env: &mut Vec<String>, proxy: &ProxyEnv) {
    let ProxyEnv { http_proxy, https_proxy, ftp_proxy, no_proxy, all_proxy } = proxy;
    let pairs = [
        ("http_proxy", http_proxy),
        ("https_proxy", https_proxy),
        ("ftp_proxy", ftp_proxy),
        ("no_proxy", no_proxy),
        ("all_proxy", all_proxy),
    ];
    for (name, value) in pairs {
        if value.is_empty() {
            continue;
        }
        for name in [name.to_uppercase(), name.to_owned()] {
            let prefix = format!("{name}=");
            if !env.iter().any(|it| it.starts_with(&prefix)) {
                env.push(prefix + value);
            }
        }
    }
}

fn add_mount(
    planned: &mut PlannedExec,
    mount: &Mount,
    chain: &dyn Fn(usize) -> Chain,
    session: &dyn Session,
    new_layer: &mut dyn FnMut() -> LayerId,
) -> Result<(), SolveError> {
    let base = mount.input.map_or_else(Vec::new, chain);
    let source = match &mount.kind {
        MountKind::Bind => {
            let commit = mount.output.filter(|_| !mount.readonly).map(|output| {
                let layer = new_layer();
                planned
                    .outputs
                    .insert(output, OutputLayer { base: base.clone(), layer: layer.clone() });
                layer
            });
            MountSource::Tree { chain: base, selector: mount.selector.clone(), commit }
        }
        MountKind::Cache { id, sharing, mode, uid, gid } => {
            planned.caches.push(CacheMount {
                mount: planned.request.mounts.len(),
                key: cache_key(id, &base, &mount.selector),
                sharing: *sharing,
            });
            MountSource::Cache {
                dir: PathBuf::new(),
                base,
                selector: mount.selector.clone(),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            }
        }
        MountKind::Tmpfs { size } => MountSource::Tmpfs { size: *size },
        MountKind::Secret { id, uid, gid, mode, optional } => {
            match session.secret(id).map_err(SolveError::from)? {
                Some(value) => {
                    let fd = secret_file(id, &value)?;
                    planned.fds.push(fd);
                    MountSource::Secret {
                        value: planned.fds.len() - 1,
                        uid: *uid,
                        gid: *gid,
                        mode: *mode,
                    }
                }
                None if *optional => return Ok(()),
                None => return Err(missing_secret(id)),
            }
        }
        MountKind::Ssh { id, uid, gid, mode, optional } => {
            match session.ssh_agent(id).map_err(SolveError::from)? {
                Some(path) => MountSource::Socket { path, uid: *uid, gid: *gid, mode: *mode },
                None if *optional => return Ok(()),
                None => {
                    return Err(SolveError::user(format!("unset ssh forward key {id}"))
                        .with_hint(format!("offer an agent or a key with --ssh {id}[=PATH]")));
                }
            }
        }
    };
    planned.request.mounts.push(ExecMount {
        dest: mount.dest.clone(),
        readonly: mount.readonly,
        source,
    });
    Ok(())
}

fn missing_secret(id: &str) -> SolveError {
    SolveError::user(format!("secret {id}: not found"))
        .with_hint(format!("offer it with --secret id={id},src=FILE"))
}

/// A file in memory, at its start, with the secret's value.
fn secret_file(id: &str, value: &[u8]) -> Result<OwnedFd, SolveError> {
    if value.len() > MAX_SECRET {
        return Err(SolveError::user(format!("secret {id} is larger than {MAX_SECRET} bytes")));
    }
    let file = rustix::fs::memfd_create("secret", rustix::fs::MemfdFlags::CLOEXEC)
        .and_then(|file| {
            let mut rest = value;
            let mut offset = 0;
            while !rest.is_empty() {
                let written = rustix::io::pwrite(&file, rest, offset)?;
                rest = &rest[written..];
                offset += written as u64;
            }
            Ok(file)
        })
        .map_err(|error| {
            SolveError::new(
                SolveErrorKind::Host,
                format!("cannot keep secret {id} in memory: {error}"),
            )
        })?;
    Ok(file)
}

/// Identity of a cache mount's directory: its name and what it starts from.
fn cache_key(id: &str, base: &Chain, selector: &str) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(id.as_bytes());
    if !base.is_empty() {
        hasher.field(selector.as_bytes());
        for layer in base {
            hasher.field(layer.0.as_bytes());
        }
    }
    hasher.finish()
}

/// The command as messages show it: BuildKit's words for a step that failed.
pub fn failed_text(op: &ExecOp, how: &str) -> String {
    format!("process {:?} did not complete successfully: {how}", op.meta.args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_do_not_replace_what_the_step_sets() {
        let mut env = vec!["HTTP_PROXY=own".to_owned()];
        let proxy = ProxyEnv { http_proxy: "p".to_owned(), ..ProxyEnv::default() };
        add_proxies(&mut env, &proxy);
        assert_eq!(env, ["HTTP_PROXY=own", "http_proxy=p"]);
    }

    #[test]
    fn a_cache_is_its_name_and_its_start() {
        let base = vec![LayerId("a".into())];
        assert_eq!(cache_key("x", &vec![], "/s"), cache_key("x", &vec![], ""));
        assert_ne!(cache_key("x", &vec![], ""), cache_key("x", &base, ""));
    }
}
