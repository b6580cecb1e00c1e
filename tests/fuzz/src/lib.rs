//! Fuzz targets: functions that take any bytes, and panic only if the code under test does or breaks a law of its own.
//!
//! `cargo xtask fuzz` runs them: guided by coverage where cargo-fuzz is installed, else by blind mutation of the seeds,
//! which `cargo test` does for a moment each time.

use rbuild_frontend::expand::Expander;
use rbuild_frontend::text::SourceText;
use rbuild_frontend::{dump, parse};
use rbuild_solver::cache::Record;
use rbuild_store::image::config::ImageConfig;
use rbuild_store::pattern::{Matched, PatternSet, parse_ignore_file};
use rbuild_store::platform::Platform;
use rbuild_store::reference::Reference;
use rbuild_store::registry::config::Hosts;
use rbuild_store::tar::read::{Item, TarReader};

/// A target, its name, and inputs to start from.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of the function.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
    /// Inputs that reach far into it.
    pub seeds: &'static [&'static [u8]],
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "cache_record",
        run: cache_record,
        seeds: &[br#"{"version":1,"parts":[["op","sha256:00"]],"result":{"layers":[]}}"#],
    },
    Target {
        name: "dockerfile",
        run: dockerfile,
        seeds: &[
            b"# syntax=docker/dockerfile:1\n# escape=`\nFROM a AS b\nRUN x `\n  y\n",
            b"ARG A=1\nFROM --platform=$BUILDPLATFORM img:${A:-x}@sha256:00\nCOPY --chown=1:2 --from=b [\"a b\", \"/c\"]\n",
            b"FROM x\nRUN <<EOF cat <<-'B' > /f\necho $A\nEOF\n\tb\nB\nCOPY <<\"X\" /y\nz\nX\n",
            b"FROM x\nRUN --mount=type=cache,id=a,target=/b,sharing=locked --network=none [\"sh\", \"-c\", \"true\"]\n",
            b"FROM x\nHEALTHCHECK --interval=1m30s CMD a || b\nENV a=b c=\"d e\"\nENV old style\nLABEL \"k\"='v'\nEXPOSE 1-3/udp\nONBUILD ADD https://e/x /\n",
        ],
    },
    Target {
        name: "expand",
        run: expand,
        seeds: &[
            b"${A:-${B:+\"c\"}}$D\\$e'$f'",
            b"${A/x*/y}${A//./_}${A#*/}${A##*/}${A%.*}${A%%.*}${A?no}",
            b"$1 $ ${ ${} $$ \xff",
        ],
    },
    Target { name: "ignore", run: ignore, seeds: &[b"**/*.rs\n!a/**/b\n# c\n/d/?[a-z]*\n\\#e\n[]a]\n[^x\n", b"../x\n./a//b/\n!!\n**\n"] },
    Target {
        name: "image_config",
        run: image_config,
        seeds: &[
            br#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created":"2020-01-01T00:00:00Z","empty_layer":true}],"x":1}"#,
        ],
    },
    Target {
        name: "reference",
        run: reference,
        seeds: &[
            b"busybox",
            b"localhost:5000/a/b_c--d:T-1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            b"linux/arm64/v8",
            b"[::1]:5000/x",
        ],
    },
    Target {
        name: "registries_conf",
        run: registries_conf,
        seeds: &[
            b"unqualified-search-registries = [\"a\"]\n[[registry]]\nprefix = \"*.x\"\nlocation = \"y\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"z\"\n",
            b"[registry.\"docker.io\"]\nmirrors = [\"http://m:1/p\"]\nhttp = true\n",
        ],
    },
    Target { name: "tar", run: tar, seeds: &[TAR] },
];

/// A tar with an extended header, a file, a hard link and a whiteout, made by GNU tar.
const TAR: &[u8] = include_bytes!("../seeds/small.tar");

/// A Dockerfile is parsed, or refused with places that lie in it; what was parsed can be printed.
pub fn dockerfile(data: &[u8]) {
    let Ok(source) = SourceText::new("Dockerfile", data) else { return };
    match parse::parse(&source) {
        Ok(dockerfile) => drop(dump::dump(&dockerfile)),
        Err(diagnostics) => drop(format!("{diagnostics:?}")),
    }
}

/// A word is expanded in each way, or refused.
pub fn expand(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lookup = |name: &str| (name.len() % 2 == 1).then(|| format!("<{name}.{name}/x>"));
    for expander in [
        Expander::new('\\'),
        Expander::new('`'),
        Expander::for_heredoc(),
        Expander::for_display('\\'),
    ] {
        drop(expander.expand(&text, &lookup));
    }
}

/// Patterns are read, or refused, and match what is asked of them.
pub fn ignore(data: &[u8]) {
    let Ok(set) = PatternSet::new(&parse_ignore_file(data)) else { return };
    for path in [&b"a"[..], b"a/b/c.rs", b"d/x", b"\xff", data] {
        let whole = set.matches(path);
        let (stepwise, _) = set.matches_dir(path, &Matched::default());
        if !path.contains(&b'/') && !path.contains(&0) {
            assert_eq!(whole, stepwise, "one step and the whole way differ for {path:?}");
        }
        std::hint::black_box((set.may_match_below(path), set.may_except_below(path)));
    }
}

/// What a name is printed as is read as the same name.
pub fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().ok(), Some(reference));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert!(platform.to_string().parse::<Platform>().is_ok(), "{platform}");
    }
}

/// A configuration of registries is read or refused.
pub fn registries_conf(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut hosts = Hosts::default();
    drop(hosts.add_buildkit(&text));
    drop(hosts.add_containers(&text));
}

/// A config is read or refused; what was read is read again from what it was written as.
pub fn image_config(data: &[u8]) {
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(data) {
        let written = serde_json::to_vec(&config).expect("a config can be written");
        let again: ImageConfig =
            serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(serde_json::to_vec(&again).ok(), Some(written));
    }
}

/// A record is read or not; what was read is read again from what it was written as.
pub fn cache_record(data: &[u8]) {
    if let Some(record) = Record::from_json(data) {
        assert!(Record::from_json(&record.to_json()).is_some());
    }
}

/// No entry of a tar lies outside.
pub fn tar(data: &[u8]) {
    let mut reader = TarReader::new(data);
    while let Ok(Some(item)) = reader.next() {
        let path = match &item {
            Item::Entry(entry) => &entry.path,
            Item::Opaque(path) => path,
        };
        let outside =
            path.starts_with(b"/") || path.split(|byte| *byte == b'/').any(|part| part == b"..");
        assert!(!outside, "{:?} lies outside", String::from_utf8_lossy(path));
        let mut body = Vec::new();
        drop(std::io::Read::read_to_end(&mut std::io::Read::take(&mut reader, 1 << 20), &mut body));
    }
}
