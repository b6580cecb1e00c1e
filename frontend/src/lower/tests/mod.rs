//! Dockerfile text in; steps, configuration and history out. The world is a fake with some images.

mod call;
mod copy;
mod epoch;
mod images;
mod named;
mod refused;
mod run;
mod show;
mod stages;
mod values;

use std::cell::RefCell;
use std::collections::BTreeMap;

use expect_test::Expect;
use rbuild_solver::llb::op::SourceOp;
use rbuild_store::image::config::ImageConfig;
use rbuild_store::platform::Platform;

use super::*;
use crate::gateway::{GatewayError, ResolvedImage};
use crate::parse;

/// What every image of the fake world has besides its `config`.
const IMAGE: &str = r#"{"architecture":"amd64","os":"linux",
    "rootfs":{"type":"layers","diff_ids":["sha256:1111111111111111111111111111111111111111111111111111111111111111"]},
    "history":[{"created_by":"base"}]}"#;

/// Images by their full names without tags, with what they have in `config`.
const IMAGES: &[(&str, &str)] = &[
    ("busybox", r#"{"Env":["PATH=/bin"],"Cmd":["sh"]}"#),
    ("alpine", r#"{"Env":["PATH=/sbin:/bin"],"Cmd":["/bin/sh"]}"#),
    ("bare", "{}"),
    (
        "onbuild",
        r#"{"Env":["PATH=/bin"],"OnBuild":["ENV T=1","COPY --from=alpine /a /a","RUN echo $T"]}"#,
    ),
    (
        "full",
        r#"{"Env":["PATH=/bin","A=1"],"Cmd":["c"],"Entrypoint":["e"],"User":"7","WorkingDir":"/w",
            "Shell":["/bin/ash","-ec"],"Labels":{"l":"1"},"OnBuild":[],"Odd":1}"#,
    ),
];

#[derive(Default)]
struct Fake {
    /// Files of contexts: context, name, content.
    files: Vec<(&'static str, &'static str, &'static str)>,
    /// Names of all questions for images, one line for each batch.
    asked: RefCell<Vec<String>>,
}

impl Gateway for Fake {
    fn resolve_images(
        &self,
        requests: &[ImageRequest],
    ) -> Vec<Result<ResolvedImage, GatewayError>> {
        let names: Vec<&str> = requests.iter().map(|it| it.name.as_str()).collect();
        self.asked.borrow_mut().push(names.join(" + "));
        requests.iter().map(resolve).collect()
    }

    fn read_context_file(
        &self,
        context: &str,
        path: &str,
    ) -> Result<Option<Vec<u8>>, GatewayError> {
        let mut files = self.files.iter();
        let file = files.find(|(its_context, name, _)| *its_context == context && *name == path);
        Ok(file.map(|(_, _, content)| content.as_bytes().to_vec()))
    }

    /// Whatever has `time=N` in its name or its attributes is from that second.
    fn source_time(&self, source: &SourceOp) -> Result<Option<i64>, GatewayError> {
        let text = format!("{source:?} ");
        let (_, after) = text.split_once("time=").unwrap_or_default();
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        Ok(digits.parse().ok())
    }
}

fn resolve(request: &ImageRequest) -> Result<ResolvedImage, GatewayError> {
    let bare = request.reference.trim_start_matches("docker.io/library/");
    let name = bare.split([':', '@']).next().unwrap_or_default();
    let (_, config) = IMAGES.iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let text = format!("{}: not found", request.reference);
        GatewayError { kind: GatewayErrorKind::NotFound, text, hint: None }
    })?;
    let mut image: ImageConfig = serde_json::from_str(IMAGE).expect("a configuration");
    image.config = serde_json::from_str(config).expect("a configuration");
    let platform = request.platform.normalized();
    image.architecture.clone_from(&platform.architecture);
    let pinned = format!("docker-image://{}@sha256:{}", request.reference, "ab".repeat(32));
    Ok(ResolvedImage { pinned, config: image, platform })
}

/// A build with ordinary options; a test changes what it is about.
struct Case {
    dockerfile: &'static str,
    options: BuildOptions,
    fake: Fake,
}

fn case(dockerfile: &'static str) -> Case {
    let options = BuildOptions::new(Platform::new("linux", "amd64"));
    Case { dockerfile, options, fake: Fake::default() }
}

impl Case {
    fn arg(mut self, name: &str, value: &str) -> Self {
        self.options.build_args.insert(name.to_owned(), value.to_owned());
        self
    }

    fn with(mut self, change: impl FnOnce(&mut BuildOptions)) -> Self {
        change(&mut self.options);
        self
    }

    fn file(mut self, context: &'static str, name: &'static str, content: &'static str) -> Self {
        self.fake.files.push((context, name, content));
        self
    }

    fn try_lower(&self) -> Result<(Lowered, Linter), String> {
        let source =
            SourceText::new("Dockerfile", self.dockerfile.as_bytes()).expect("is not large");
        let dockerfile = parse::parse(&source).map_err(|error| error.render(&source))?;
        let mut linter = Linter::default();
        let input = Input { dockerfile: &dockerfile, options: &self.options, gateway: &self.fake };
        let lowered = lower_with(input, &source, &mut linter);
        lowered.map(|it| (it, linter)).map_err(|error| error.diagnostics.render(&source))
    }

    fn lower(&self) -> Lowered {
        match self.try_lower() {
            Ok((lowered, _)) => lowered,
            Err(error) => panic!("{error}"),
        }
    }

    /// The only target's configuration.
    fn config(&self) -> ImageConfig {
        self.lower().targets.remove(0).config
    }

    /// The vertices, one paragraph each.
    #[track_caller]
    fn steps(&self, want: &Expect) {
        want.assert_eq(&show::graph(&self.lower()));
    }

    /// The history behind that of the base.
    #[track_caller]
    fn history(&self, want: &Expect) {
        want.assert_eq(&show::history(&self.config()));
    }

    /// The configuration's `config`.
    #[track_caller]
    fn run_config(&self, want: &Expect) {
        let config = serde_json::to_string_pretty(&self.config().config).expect("is JSON");
        want.assert_eq(&config);
    }

    /// The error, with its excerpt.
    #[track_caller]
    fn refused(&self, want: &Expect) {
        match self.try_lower() {
            Ok((lowered, _)) => panic!("is accepted:\n{}", show::graph(&lowered)),
            Err(error) => want.assert_eq(&error),
        }
    }

    /// The warnings of the rules that run during lowering.
    #[track_caller]
    fn warnings(&self, want: &Expect) {
        let (_, linter) = self.try_lower().unwrap_or_else(|error| panic!("{error}"));
        let warnings = linter.warnings().iter();
        let lines: Vec<String> = warnings.map(|it| format!("{}\n", it.summary())).collect();
        want.assert_eq(&lines.concat());
    }

    fn attr(&self, key: &str) -> BTreeMap<String, String> {
        let lowered = self.lower();
        let mut found = BTreeMap::new();
        for id in lowered.graph.ids() {
            if let rbuild_solver::llb::op::Op::Source(source) = &lowered.graph[id].op
                && let Some(value) = source.attrs.get(key)
            {
                found.insert(source.identifier.clone(), value.clone());
            }
        }
        found
    }
}
