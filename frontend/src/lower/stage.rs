//! The state of a stage while it is lowered: its files, its variables, its image configuration.

use rbuild_store::image::config::{History, ImageConfig};
use rbuild_store::platform::Platform;

use crate::gotext;
use crate::lower::draft::Node;
use crate::scope::{ArgInfo, Env, split_pair};
use crate::text::Span;

/// `PATH` where an image has none.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What BuildKit writes into `comment` of each entry of the history.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// A secret or an agent that a stage mounts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MountInfo {
    pub(crate) id: String,
    pub(crate) required: bool,
    pub(crate) span: Span,
}

/// How far a stage is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Progress {
    /// Nothing is known of it.
    #[default]
    New,
    /// What it is from is known, or asked for.
    Based,
    /// It is lowered: others can take files from it.
    Done,
}

/// The state of a stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct StageState {
    /// Its files; none means an empty tree.
    pub(crate) fs: Option<Node>,
    /// Variables that its instructions and processes see: `ENV` and `ARG`.
    pub(crate) env: Env,
    /// Its configuration.
    pub(crate) image: ImageConfig,
    /// Its platform.
    pub(crate) platform: Platform,
    /// `ARG`s so far, with their values, those of the bases last.
    pub(crate) build_args: Vec<(String, Option<String>)>,
    /// The image that its files begin with.
    pub(crate) pinned: Option<String>,
    /// Index of the set of paths that are used of it.
    pub(crate) paths: usize,
    /// How far it is.
    pub(crate) progress: Progress,
    /// Whether triggers of its base are among its instructions.
    pub(crate) has_triggers: bool,
    /// Whether the cache is not asked.
    pub(crate) ignore_cache: bool,
    /// Whether there was a `WORKDIR`.
    pub(crate) has_workdir: bool,
    /// `ARG`s that it declares, with what is known of those that are not the global ones.
    pub(crate) args: Vec<(String, Option<ArgInfo>)>,
    /// Secrets that it mounts.
    pub(crate) secrets: Vec<MountInfo>,
    /// Agents that it mounts.
    pub(crate) agents: Vec<MountInfo>,
    /// Number of the last step that progress was told of.
    pub(crate) step: usize,
    /// Last `CMD` of this stage.
    pub(crate) cmd: Option<Span>,
    /// Last `ENTRYPOINT` of this stage.
    pub(crate) entrypoint: Option<Span>,
    /// Last `HEALTHCHECK` of this stage.
    pub(crate) healthcheck: Option<Span>,
}

impl StageState {
    /// Whether others can take files from it.
    pub(crate) fn is_done(&self) -> bool {
        self.progress == Progress::Done
    }

    /// The working directory, never empty.
    pub(crate) fn dir(&self) -> &str {
        match self.image.config.working_dir.as_str() {
            "" => "/",
            dir => dir,
        }
    }

    /// Takes over what a stage inherits from its base stage. `ONBUILD` is not inherited; the history
    /// is put together at the end.
    pub(crate) fn inherit(&mut self, base: &Self) {
        self.fs = base.fs;
        self.env = base.env.clone();
        self.image = without_history(&base.image);
        self.image.config.on_build.clear();
        self.platform = base.platform.clone();
        self.build_args.extend(base.build_args.iter().cloned());
        self.pinned.clone_from(&base.pinned);
        self.paths = base.paths;
        self.has_workdir = base.has_workdir;
    }

    /// Adds an entry to the history; `epoch` is the time of it.
    pub(crate) fn commit(&mut self, created_by: String, has_layer: bool, epoch: Option<i64>) {
        self.image.history.push(History {
            created: epoch.map(gotext::rfc3339),
            created_by: Some(created_by),
            author: None,
            comment: Some(HISTORY_COMMENT.to_owned()),
            empty_layer: !has_layer,
        });
    }

    /// `RUN` without the keyword, as the history shows it: `ARG`s in scope, then the arguments.
    pub(crate) fn run_text(&self, args: &[String]) -> String {
        let mut names: Vec<&str> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for (name, value) in &self.build_args {
            let value = self.env.get(name).or(value.as_deref()).unwrap_or_default();
            let word = format!("{name}={value}");
            if let Some(index) = names.iter().position(|it| it == name) {
                words[index] = word;
            } else {
                names.push(name);
                words.push(word);
            }
        }
        if !words.is_empty() {
            words.insert(0, format!("|{}", words.len()));
        }
        words.extend(args.iter().cloned());
        words.join(" ")
    }

    /// `args` behind the shell of the stage.
    pub(crate) fn with_shell(&self, line: &str) -> Vec<String> {
        let mut args = match &self.image.config.shell[..] {
            [] if self.image.os == "windows" => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
            [] => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
            shell => shell.to_vec(),
        };
        args.push(line.to_owned());
        args
    }
}

/// The configuration of `FROM scratch`.
pub(crate) fn empty_image(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: some(&platform.variant),
        os_version: some(&platform.os_version),
        ..ImageConfig::default()
    };
    "/".clone_into(&mut image.config.working_dir);
    if platform.os != "windows" {
        image.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
    image
}

/// What a stage takes over from the configuration of its base image: fields that BuildKit does not
/// know are left behind, so are its layers and its time.
pub(crate) fn based_on(base: &ImageConfig) -> ImageConfig {
    let mut image = ImageConfig { created: None, ..base.clone() };
    image.rootfs = rbuild_store::image::config::RootFs::default();
    image.extra.clear();
    image.config.extra.clear();
    image.config.stop_timeout = None;
    image
}

/// A copy, but of the history, which is long where many stages are from each other.
fn without_history(image: &ImageConfig) -> ImageConfig {
    ImageConfig {
        created: image.created.clone(),
        author: image.author.clone(),
        architecture: image.architecture.clone(),
        os: image.os.clone(),
        variant: image.variant.clone(),
        os_version: image.os_version.clone(),
        os_features: image.os_features.clone(),
        config: image.config.clone(),
        rootfs: image.rootfs.clone(),
        history: Vec::new(),
        extra: image.extra.clone(),
    }
}

/// Whether an image has no layer at all. Old images do not list layers, but tell of them in the
/// history.
pub(crate) fn has_no_layers(image: &ImageConfig) -> bool {
    image.rootfs.diff_ids.is_empty() && image.history.iter().all(|it| it.empty_layer)
}

/// Makes sure that `PATH` is set.
pub(crate) fn ensure_path(image: &mut ImageConfig, os: &str) {
    let has_path = image.config.env.iter().any(|line| split_pair(line).0 == "PATH");
    if !has_path && os != "windows" {
        image.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
}

/// The text unless it is empty.
pub(crate) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
