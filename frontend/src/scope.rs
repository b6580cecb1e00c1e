//! Which variables are visible where.
//!
//! | scope | holds | seen by |
//! |---|---|---|
//! | global | platform arguments, `ARG` before the first `FROM` | `FROM`, `ARG name` without default |
//! | stage | `ENV` of the base image, `ENV` and `ARG` of the stage and of the stages it is from | all else |
//!
//! A `--build-arg` wins over a default, an `ENV` over an `ARG` that stands before it. Proxy
//! arguments reach the processes of the build without being declared, and are never part of a key
//! or of the history ([`proxy_env`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rbuild_solver::llb::op::ProxyEnv;
use rbuild_store::platform::Platform;

use crate::ast::ArgInstruction;
use crate::diagnostic::Diagnostic;
use crate::expand::{ExpandError, Expander, Expansion};
use crate::text::Span;

/// Arguments that direct the build and never reach a process.
pub(crate) const NOT_IN_ENVIRONMENT: [&str; 2] =
    ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Variables in the order in which they got their last value. No operation on one of them looks at
/// the others: a Dockerfile may set as many as it has lines.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Env {
    /// Names and values by age.
    by_age: BTreeMap<usize, (String, String)>,
    /// Age of each name.
    ages: HashMap<String, usize>,
    /// Age of the next value.
    next: usize,
    n_bytes: usize,
}

impl Env {
    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.by_age.get(self.ages.get(name)?).map(|(_, value)| value.as_str())
    }

    /// Sets a variable, which becomes the last one.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.ages.insert(name.to_owned(), self.next);
        self.by_age.insert(self.next, (name.to_owned(), value.to_owned()));
        self.n_bytes += name.len() + value.len();
        self.next += 1;
    }

    /// Forgets a variable.
    pub(crate) fn remove(&mut self, name: &str) {
        let Some(age) = self.ages.remove(name) else { return };
        let (name, value) = self.by_age.remove(&age).unwrap_or_default();
        self.n_bytes -= name.len() + value.len();
    }

    /// The names, oldest value first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_age.values().map(|(key, _)| key.as_str())
    }

    /// How long all names and values are together.
    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// `NAME=value`, oldest value first.
    pub(crate) fn to_lines(&self) -> Vec<String> {
        self.by_age.values().map(|(key, value)| format!("{key}={value}")).collect()
    }

    /// Expands a word.
    pub(crate) fn expand(&self, rules: Expander, word: &str) -> Result<Expansion, ExpandError> {
        rules.expand(word, &|name| self.get(name).map(str::to_owned))
    }
}

/// Splits `NAME=value`; a text without `=` is a name with an empty value.
pub(crate) fn split_pair(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((text, ""))
}

/// Sets a variable of an image configuration: in its place if it is there, else at the end.
pub(crate) fn set_in_config(env: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    let is_it = |it: &&mut String| {
        let after = it.strip_prefix(name);
        after.is_some_and(|after| after.is_empty() || after.starts_with('='))
    };
    match env.iter_mut().find(is_it) {
        Some(known) => *known = line,
        None => env.push(line),
    }
}

/// What is known of one `ARG`, for `--call=outline`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ArgInfo {
    /// Description from the comments above.
    pub(crate) doc: Option<String>,
    /// Its value, empty where it has none.
    pub(crate) value: String,
    /// Variables that its default uses.
    pub(crate) uses: BTreeSet<String>,
    /// Where it is declared.
    pub(crate) span: Span,
}

/// The global scope.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    /// Values.
    pub(crate) env: Env,
    /// Declarations before the first `FROM`, by name.
    pub(crate) args: BTreeMap<String, ArgInfo>,
}

/// The global scope: platform arguments, then each `ARG` before the first `FROM`. `given` are the
/// `--build-arg`s.
pub(crate) fn globals(
    platform_args: Env,
    rules: Expander,
    declarations: &[&ArgInstruction],
    given: &BTreeMap<String, String>,
) -> Result<Globals, Diagnostic> {
    let mut globals = Globals { env: platform_args, args: BTreeMap::new() };
    for instruction in declarations {
        let span = instruction.header.span;
        for declared in &instruction.declarations {
            let name = &declared.name.value;
            let mut info = ArgInfo { doc: declared.doc.clone(), span, ..ArgInfo::default() };
            let value = if let Some(value) = given.get(name) {
                Some(value.clone())
            } else if let Some(default) = &declared.value {
                let expansion = globals
                    .env
                    .expand(rules, &default.value)
                    .map_err(|error| Diagnostic::new(span, error.to_string()))?;
                info.uses = expansion.matched;
                if info.uses.remove(name)
                    && let Some(older) = globals.args.get(name)
                {
                    info.uses.extend(older.uses.iter().cloned());
                }
                Some(expansion.text)
            } else {
                None
            };
            if let Some(value) = value {
                globals.env.set(name, &value);
                info.value = value;
            }
            globals.args.insert(name.clone(), info);
        }
    }
    Ok(globals)
}

/// `TARGETPLATFORM`, `BUILDPLATFORM` and their parts; a `--build-arg` of the name wins.
pub(crate) fn platform_args(
    build: &Platform,
    target: &Platform,
    target_stage: &str,
    given: &BTreeMap<String, String>,
) -> Env {
    let build_text = build.short();
    let target_text = target.to_string();
    let stage = if target_stage.is_empty() { "default" } else { target_stage };
    let values = [
        ("BUILDPLATFORM", build_text.as_str()),
        ("BUILDOS", &build.os),
        ("BUILDOSVERSION", &build.os_version),
        ("BUILDARCH", &build.architecture),
        ("BUILDVARIANT", &build.variant),
        ("TARGETPLATFORM", &target_text),
        ("TARGETOS", &target.os),
        ("TARGETOSVERSION", &target.os_version),
        ("TARGETARCH", &target.architecture),
        ("TARGETVARIANT", &target.variant),
        ("TARGETSTAGE", stage),
    ];
    let mut env = Env::default();
    for (name, value) in values {
        env.set(name, given.get(name).map_or(value, String::as_str));
    }
    env
}

/// The platform that `TARGETPLATFORM`, or `TARGETOS` and its brothers, say. Only variables that
/// the stage declared are seen.
pub(crate) fn platform_from(env: &Env, base: &Platform) -> Option<Platform> {
    if let Some(Ok(platform)) = env.get("TARGETPLATFORM").map(str::parse::<Platform>) {
        return Some(platform.normalized());
    }
    let parts = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].map(|name| env.get(name));
    if parts == [None; 3] {
        return None;
    }
    let or_base = |part: Option<&str>, base: &str| {
        part.filter(|it| !it.is_empty()).unwrap_or(base).to_owned()
    };
    let [os, architecture, variant] = parts;
    let platform = Platform {
        os: or_base(os, &base.os),
        architecture: or_base(architecture, &base.architecture),
        variant: variant.unwrap_or_default().to_owned(),
        os_version: String::new(),
    };
    Some(platform.normalized())
}

/// Proxy settings among the `--build-arg`s, by name in any case; none if there is none.
pub(crate) fn proxy_env(given: &BTreeMap<String, String>) -> Option<ProxyEnv> {
    let mut proxy = ProxyEnv::default();
    let mut is_set = false;
    for (name, value) in given {
        let field = match name.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxy.http_proxy,
            "https_proxy" => &mut proxy.https_proxy,
            "ftp_proxy" => &mut proxy.ftp_proxy,
            "no_proxy" => &mut proxy.no_proxy,
            "all_proxy" => &mut proxy.all_proxy,
            _ => continue,
        };
        field.clone_from(value);
        is_set = true;
    }
    is_set.then_some(proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_new_value_moves_a_variable_to_the_end() {
        let mut env = Env::default();
        env.set("A", "1");
        env.set("B", "2");
        env.set("A", "3");
        assert_eq!(env.to_lines(), ["B=2", "A=3"]);
        let mut config = vec!["A=1".to_owned(), "B=2".to_owned()];
        set_in_config(&mut config, "A", "3");
        assert_eq!(config, ["A=3", "B=2"]);
    }

    #[test]
    fn build_arguments_win_over_platform_arguments() {
        let amd64 = Platform::new("linux", "amd64");
        let env = platform_args(&amd64, &amd64, "", &map(&[("TARGETARCH", "mine")]));
        assert_eq!(env.get("TARGETARCH"), Some("mine"));
        assert_eq!(env.get("TARGETPLATFORM"), Some("linux/amd64"));
        assert_eq!(env.get("TARGETSTAGE"), Some("default"));
    }

    #[test]
    fn proxies_in_any_case() {
        assert_eq!(proxy_env(&map(&[("x", "y")])), None);
        let proxy = proxy_env(&map(&[("HTTP_PROXY", "a"), ("no_proxy", "b")])).expect("is set");
        assert_eq!((proxy.http_proxy.as_str(), proxy.no_proxy.as_str()), ("a", "b"));
    }

    #[test]
    fn the_platform_that_a_stage_builds_for() {
        let base = Platform::new("linux", "amd64");
        let mut env = Env::default();
        assert_eq!(platform_from(&env, &base), None);
        env.set("TARGETARCH", "arm64");
        assert_eq!(platform_from(&env, &base).map(|it| it.short()).as_deref(), Some("linux/arm64"));
    }
}
