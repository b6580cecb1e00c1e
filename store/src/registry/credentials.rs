//! Credentials: the files of Docker and of the containers tools, and credential helpers.
//!
//! Nothing is read before a registry asks for credentials. The first file that knows a registry
//! decides. A file or helper that fails is no fault as long as the registry gives what is wanted
//! without it; what happened is noted and told when access is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::OnceCell;

use super::config_file::read;
use crate::reference::DEFAULT_DOMAIN;

/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_mins(1);
/// Most bytes that a credential helper may write.
const MAX_HELPER_BYTES: u64 = 1 << 20;
/// What Docker Hub is called in credential files and by helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name that marks a secret as an identity token.
const TOKEN_USER: &str = "<token>";

/// What proves who asks.
#[derive(Clone, Eq, PartialEq)]
pub enum Secret {
    /// User name and password.
    Password {
        /// Name.
        user: String,
        /// Password, or an access token in its place.
        password: String,
    },
    /// An `OAuth2` refresh token: exchanged for a token at the token server.
    IdentityToken(String),
    /// A token for the registry itself.
    RegistryToken(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

/// A secret and where it is from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credential {
    /// The secret.
    pub secret: Secret,
    /// File or helper, for messages.
    pub origin: String,
}

/// The credentials of a user.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    paths: Vec<PathBuf>,
    files: Arc<OnceCell<Files>>,
}

/// What a look-up found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) credential: Option<Credential>,
    /// What went wrong on the way.
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Default)]
struct Files {
    files: Vec<(PathBuf, File)>,
    notes: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(rename = "auth")]
    pair: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// The answer of a helper.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// The parts of the environment that say where credential files are.
#[derive(Clone, Debug, Default)]
pub struct CredentialEnvironment {
    /// `$REGISTRY_AUTH_FILE`.
    pub registry_auth_file: Option<PathBuf>,
    /// `$DOCKER_CONFIG`, a directory.
    pub docker_config: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
}

impl CredentialEnvironment {
    /// The credential files, first the ones that the user named.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.registry_auth_file.iter().cloned().collect();
        let home = |below: &str| self.home.as_ref().map(|it| it.join(below));
        let docker = self.docker_config.clone().or_else(|| home(".docker"));
        paths.extend(docker.map(|it| it.join("config.json")));
        paths.extend(self.runtime_dir.as_ref().map(|it| it.join("containers/auth.json")));
        let config = self.config_home.clone().or_else(|| home(".config"));
        paths.extend(config.map(|it| it.join("containers/auth.json")));
        paths
    }
}

impl Credentials {
    /// Credentials from `paths`, in this order; files that do not exist are passed over.
    pub fn from_paths(paths: Vec<PathBuf>) -> Self {
        Self { paths, files: Arc::default() }
    }

    /// The files that are looked into.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// What is known for the repository `path` of the registry `domain`.
    pub(crate) async fn find(&self, domain: &str, path: &str) -> Found {
        let files = self.files.get_or_init(|| load(self.paths.clone())).await;
        let mut found = Found { credential: None, notes: files.notes.clone() };
        for (file_path, file) in &files.files {
            let origin = file_path.display().to_string();
            if let Some(helper) = file.helper(domain) {
                match ask_helper(helper, helper_key(domain)).await {
                    Ok(Some(secret)) => {
                        let origin = format!("credential helper `{helper}` (named by {origin})");
                        found.credential = Some(Credential { secret, origin });
                        return found;
                    }
                    Ok(None) => {}
                    Err(note) => found.notes.push(note),
                }
            }
            match file.entry(domain, path).map(Auth::secret) {
                Some(Ok(Some(secret))) => {
                    found.credential = Some(Credential { secret, origin });
                    return found;
                }
                Some(Err(reason)) => {
                    found.notes.push(format!("{origin}: entry for {domain}: {reason}"));
                }
                Some(Ok(None)) | None => {}
            }
        }
        found
    }
}

async fn load(paths: Vec<PathBuf>) -> Files {
    let loading = tokio::task::spawn_blocking(move || {
        let mut files = Files::default();
        for path in paths {
            match parse(&path) {
                Ok(Some(file)) => files.files.push((path, file)),
                Ok(None) => {}
                Err(note) => files.notes.push(note),
            }
        }
        files
    });
    loading.await.unwrap_or_default()
}

fn parse(path: &Path) -> Result<Option<File>, String> {
    let text = read(path).map_err(|it| {
        let cause = std::error::Error::source(&it).map(|it| format!(": {it}")).unwrap_or_default();
        format!("{it}{cause}")
    })?;
    let Some(text) = text.filter(|it| !it.trim().is_empty()) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|it| format!("{}: {it}", path.display()))
}

impl File {
    /// The helper for `domain`: its own, or the one for all.
    fn helper(&self, domain: &str) -> Option<&str> {
        let own = self.cred_helpers.iter().find(|(key, _)| host_of(key) == canonical(domain));
        let name = own.map(|(_, name)| name).or(self.creds_store.as_ref());
        name.map(String::as_str).filter(|it| !it.is_empty())
    }

    /// The entry whose key is the longest that covers the repository: `host/team/app`,
    /// `host/team`, `host`.
    fn entry(&self, domain: &str, path: &str) -> Option<&Auth> {
        let mut scope = format!("{domain}/{path}");
        loop {
            if let Some(auth) = self.auths.get(&scope) {
                return Some(auth);
            }
            match scope.rfind('/') {
                Some(end) => scope.truncate(end),
                None => break,
            }
        }
        let domain = canonical(domain);
        self.auths.iter().find(|(key, _)| host_of(key) == domain).map(|(_, auth)| auth)
    }
}

/// The host of a key of a credential file: without scheme and API version, Docker Hub by its name.
fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, rest) = bare.split_once('/').unwrap_or((bare, ""));
    // `host/team` is for a part of the registry only.
    if bare.len() == key.len() && !matches!(rest.trim_end_matches('/'), "" | "v1" | "v2") {
        return bare;
    }
    canonical(host)
}

fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_DOMAIN,
        _ => host,
    }
}

fn helper_key(domain: &str) -> &str {
    if canonical(domain) == DEFAULT_DOMAIN { DOCKER_HUB_KEY } else { domain }
}

impl Auth {
    fn secret(&self) -> Result<Option<Secret>, &'static str> {
        let given = |it: &Option<String>| it.clone().filter(|it| !it.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Secret::IdentityToken(token)));
        }
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Secret::RegistryToken(token)));
        }
        if let Some(pair) = given(&self.pair) {
            return decode(&pair).map(Some);
        }
        Ok(given(&self.username)
            .map(|user| password(user, self.password.clone().unwrap_or_default())))
    }
}

fn decode(auth: &str) -> Result<Secret, &'static str> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let bytes = engine.decode(auth.trim()).map_err(|_| "`auth` is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "`auth` is not text")?;
    let (user, secret) = text.split_once(':').ok_or("`auth` is not `user:password`")?;
    Ok(password(user.to_owned(), secret.trim_end_matches('\0').to_owned()))
}

fn password(user: String, password: String) -> Secret {
    if user == TOKEN_USER {
        Secret::IdentityToken(password)
    } else {
        Secret::Password { user, password }
    }
}

/// Runs `docker-credential-NAME get`; none if it knows nothing of `server`.
async fn ask_helper(name: &str, server: &str) -> Result<Option<Secret>, String> {
    let program = format!("docker-credential-{name}");
    if name.contains('/') {
        return Err(format!("`{program}` is not the name of a credential helper"));
    }
    match tokio::time::timeout(HELPER_TIMEOUT, run_helper(&program, server)).await {
        Ok(result) => result.map_err(|it| format!("{program}: {it}")),
        Err(_) => Err(format!("{program} gave no answer in {} s", HELPER_TIMEOUT.as_secs())),
    }
}

async fn run_helper(program: &str, server: &str) -> Result<Option<Secret>, String> {
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|it| it.to_string())?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    if let Some(mut stdin) = stdin {
        // A helper that does not read tells why on its output.
        drop(stdin.write_all(server.as_bytes()).await);
    }
    let mut output = Vec::new();
    if let Some(stdout) = stdout {
        let mut bounded = stdout.take(MAX_HELPER_BYTES);
        bounded.read_to_end(&mut output).await.map_err(|it| it.to_string())?;
    }
    let status = child.wait().await.map_err(|it| it.to_string())?;
    if !status.success() {
        let text = super::error::printable(&String::from_utf8_lossy(&output));
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("{status}: {text}"));
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output).map_err(|_| "the answer makes no sense".to_owned())?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(password(answer.username, answer.secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file: &str, domain: &str, path: &str, want: &str) {
        let file: File = serde_json::from_str(file).unwrap();
        let found = match file.entry(domain, path).map(Auth::secret) {
            None => "none".to_owned(),
            Some(Ok(Some(Secret::Password { user, password }))) => format!("{user}:{password}"),
            Some(Ok(Some(Secret::IdentityToken(token)))) => format!("identity {token}"),
            Some(Ok(Some(Secret::RegistryToken(token)))) => format!("registry {token}"),
            Some(Ok(None)) => "empty".to_owned(),
            Some(Err(reason)) => reason.to_owned(),
        };
        assert_eq!(found, want);
    }

    #[test]
    fn entries() {
        let file = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "dTpw"},
            "plain.example": {"username": "u", "password": "p:q"},
            "quay.io/team": {"auth": "dGVhbTpw"},
            "quay.io": {"auth": "YWxsOnA="},
            "https://url.example/v2/": {"identitytoken": "t"},
            "reg.example:5000": {"registrytoken": "r"},
            "store.example": {},
            "bad.example": {"auth": "???"}
        }}"#;
        check(file, "docker.io", "library/app", "u:p");
        check(file, "plain.example", "a", "u:p:q");
        check(file, "quay.io", "team/app", "team:p");
        check(file, "quay.io", "teams/app", "all:p");
        check(file, "url.example", "a", "identity t");
        check(file, "reg.example:5000", "a", "registry r");
        check(file, "reg.example", "a", "none");
        check(file, "store.example", "a", "empty");
        check(file, "bad.example", "a", "`auth` is not base64");
    }

    #[test]
    fn helpers() {
        let file: File = serde_json::from_str(
            r#"{"credsStore": "all", "credHelpers": {"gcr.io": "gcr", "index.docker.io": "hub"}}"#,
        )
        .unwrap();
        assert_eq!(file.helper("gcr.io"), Some("gcr"));
        assert_eq!(file.helper("docker.io"), Some("hub"));
        assert_eq!(file.helper("quay.io"), Some("all"));
        assert_eq!(helper_key("docker.io"), DOCKER_HUB_KEY);
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = password("user".to_owned(), "hush".to_owned());
        assert!(!format!("{secret:?}").contains("hush"));
        assert_eq!(
            password(TOKEN_USER.to_owned(), "t".to_owned()),
            Secret::IdentityToken("t".to_owned())
        );
    }

    #[test]
    fn where_files_are() {
        let environment = CredentialEnvironment {
            registry_auth_file: Some("/r.json".into()),
            docker_config: None,
            runtime_dir: Some("/run/user/1".into()),
            config_home: None,
            home: Some("/h".into()),
        };
        let want: Vec<PathBuf> = [
            "/r.json",
            "/h/.docker/config.json",
            "/run/user/1/containers/auth.json",
            "/h/.config/containers/auth.json",
        ]
        .map(Into::into)
        .to_vec();
        assert_eq!(environment.paths(), want);
    }
}
