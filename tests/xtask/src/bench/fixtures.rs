//! What the workloads build: contexts, and base images in a registry.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::base;
use crate::run::{Failure, Outcome, output, remove_dir, run, write};
use crate::users::{self, Ids};

/// The tree of W4: so many folders of so many files of so many bytes.
const TREE: (u32, u32, usize) = (500, 100, 8_000);
/// How old files of a tree are at least before it is built.
const SETTLING: Duration = Duration::from_secs(3);
/// Bytes of a file where there are many thousands.
const SMALL_BYTES: usize = 800;
/// The layer of W6.
pub(super) const LARGE_MEGABYTES: u32 = 1_000;
/// The layer of W8.
const MEDIUM_MEGABYTES: u32 = 320;
/// The C project of W10: so many files of so many functions.
const PROJECT: (u32, u32) = (24, 60);

/// Where they lie.
#[derive(Debug)]
pub(super) struct Fixtures {
    folder: PathBuf,
    registry: String,
    user: Option<Ids>,
}

impl Fixtures {
    /// Makes the contexts below `home` and offers the base images in the registry; keeps what is expensive in `kept`.
    pub(super) fn make(
        kept: &Path,
        home: &Path,
        registry: &str,
        user: Option<&Ids>,
        debian: bool,
    ) -> Outcome<Self> {
        let (folder, user) = (home.join("contexts"), user.cloned());
        let fixtures = Self { folder, registry: registry.to_owned(), user };
        let layout = base::busybox_layout(&home.join("base"))?;
        offer(&format!("oci:{}:latest", layout.display()), &format!("{registry}/busybox:1"))?;
        if debian {
            for (name, packages) in [("debian", ""), ("compiler", "gcc,libc6-dev,make")] {
                offer_debian(kept, packages, name, &format!("{registry}/{name}:1"))?;
            }
        }
        fixtures.small(registry)?;
        fixtures.project(registry)?;
        Ok(fixtures)
    }

    /// A context that is always there.
    pub(super) fn context(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn dockerfile(&self, name: &str, text: &str) -> Outcome {
        write(&self.context(name).join("Dockerfile"), text)
    }

    fn small(&self, registry: &str) -> Outcome {
        let base = format!("FROM {registry}/busybox:1\n");
        for name in ["busybox", "debian", "compiler"] {
            self.dockerfile(name, &format!("FROM {registry}/{name}:1\nRUN true\n"))?;
        }
        self.dockerfile(
            "cached",
            &format!("{base}ENV A=1\nWORKDIR /w\nCOPY file .\nRUN echo 1 > 1\nRUN echo 2 > 2\nRUN echo 3 > 3\nLABEL a=b\nRUN echo 4 > 4\nCMD [\"sh\"]\n"),
        )?;
        write(&self.context("cached").join("file"), "content")?;
        let mut steps = base.clone();
        for step in 0..50 {
            writeln!(steps, "RUN echo {step} > /tmp/{step}").expect("writing to memory");
        }
        self.dockerfile("steps", &steps)?;
        let (mut stages, mut copies) = (String::new(), base.clone());
        for stage in 0..8 {
            write!(
                stages,
                "FROM {registry}/busybox:1 AS s{stage}\nRUN sleep 1 && echo {stage} > /out\n"
            )
            .expect("writing to memory");
            writeln!(copies, "COPY --from=s{stage} /out /out{stage}").expect("writing to memory");
        }
        self.dockerfile("stages", &format!("{stages}{copies}"))?;
        self.dockerfile(
            "install",
            &format!("FROM {registry}/debian:1\nRUN apt-get update && apt-get install -y --no-install-recommends curl python3-minimal\n"),
        )?;
        self.dockerfile("short", &format!("{base}COPY file /\nRUN true\n"))?;
        write(&self.context("short").join("file"), "content")
    }

    fn project(&self, registry: &str) -> Outcome {
        let context = self.context("project");
        let (files, functions) = PROJECT;
        for file in 0..files {
            let mut text =
                String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
            for function in 0..functions {
                write!(
                    text,
                    "int f{file}_{function}(const char *s, int n) {{\n  int sum = {function};\n  for (int i = 0; i < n; i++)\n    \
                     for (size_t j = 0; j < strlen(s); j++) sum = (sum * 31 + s[j] * i) ^ {file};\n  \
                     if (sum == 7) printf(\"%d\\n\", sum);\n  return sum;\n}}\n"
                )
                .expect("writing to memory");
            }
            write(&context.join(format!("src/f{file}.c")), text)?;
        }
        write(
            &context.join("src/main.c"),
            "int f0_0(const char *, int);\nint main(void) { return f0_0(\"x\", 3) == 0; }\n",
        )?;
        write(
            &context.join("Makefile"),
            "objects = $(patsubst %.c,%.o,$(wildcard src/*.c))\napp: $(objects)\n\t$(CC) -o $@ $^\n%.o: %.c\n\t$(CC) -O2 -c -o $@ $<\n",
        )?;
        self.dockerfile(
            "project",
            &format!(
                "FROM {registry}/compiler:1 AS build\nWORKDIR /b\nCOPY . .\nRUN make -j2 && cp app /app\n\
                 FROM {registry}/debian:1\nCOPY --from=build /app /usr/local/bin/app\nCMD [\"app\"]\n"
            ),
        )
    }

    /// The context of W4.
    pub(super) fn tree(&self) -> Outcome<PathBuf> {
        self.files("tree", TREE)
    }

    /// So many thousand small files.
    pub(super) fn thousands(&self, thousands: u32) -> Outcome<PathBuf> {
        self.files(&format!("thousands-{thousands}"), (thousands * 10, 100, SMALL_BYTES))
    }

    /// A file of its own for each of so many steps.
    pub(super) fn chain(&self, steps: u32) -> Outcome<PathBuf> {
        let mut text = format!("FROM {}/busybox:1\n", self.registry);
        for step in 0..steps {
            writeln!(text, "RUN echo {step} > /tmp/{step}").expect("writing to memory");
        }
        let name = format!("chain-{steps}");
        self.dockerfile(&name, &text)?;
        Ok(self.context(&name))
    }

    /// So many stages of one step, and a COPY from each.
    pub(super) fn fan(&self, stages: u32) -> Outcome<PathBuf> {
        let (mut text, mut copies) = (String::new(), String::from("FROM scratch\n"));
        for stage in 0..stages {
            writeln!(text, "FROM {}/busybox:1 AS s{stage}\nRUN echo {stage} > /out", self.registry)
                .expect("writing to memory");
            writeln!(copies, "COPY --from=s{stage} /out /out{stage}").expect("writing to memory");
        }
        let name = format!("fan-{stages}");
        self.dockerfile(&name, &(text + &copies))?;
        Ok(self.context(&name))
    }

    /// One COPY of so many files, each named.
    pub(super) fn sources(&self, sources: u32) -> Outcome<PathBuf> {
        let (name, mut text) = (format!("sources-{sources}"), String::from("FROM scratch\nCOPY"));
        for source in 0..sources {
            write(&self.context(&name).join(format!("f{source}")), format!("{source}\n"))?;
            write!(text, " f{source}").expect("writing to memory");
        }
        self.dockerfile(&name, &(text + " /d/\n"))?;
        Ok(self.context(&name))
    }

    fn files(&self, name: &str, (folders, files, size): (u32, u32, usize)) -> Outcome<PathBuf> {
        let context = self.context(name);
        if context.join("Dockerfile").exists() {
            return Ok(context);
        }
        for folder in 0..folders {
            for file in 0..files {
                let line = format!("line of file {file} in folder {folder}\n");
                let text = line.repeat(size / line.len() + 1);
                write(&context.join(format!("src/d{folder}/f{file}.txt")), &text[..size])?;
            }
        }
        self.dockerfile(name, "FROM scratch\nCOPY . /src\n")?;
        self.give(&context)?;
        // Who remembers files by their times must not take them for too new to be told from changed ones.
        std::thread::sleep(SETTLING);
        Ok(context)
    }

    /// The context of W6.
    pub(super) fn large(&self) -> Outcome<PathBuf> {
        self.one_file("large", LARGE_MEGABYTES)
    }

    /// The context of W8.
    pub(super) fn medium(&self) -> Outcome<PathBuf> {
        self.one_file("medium", MEDIUM_MEGABYTES)
    }

    /// One file of what this machine's system consists of: it compresses like real layers do.
    fn one_file(&self, name: &str, megabytes: u32) -> Outcome<PathBuf> {
        let context = self.context(name);
        if context.join("Dockerfile").exists() {
            return Ok(context);
        }
        write(&context.join(".keep"), "")?;
        let script = format!(
            "(while :; do tar --ignore-failed-read -cf - /usr/lib /usr/bin /usr/share 2>/dev/null || exit; done) | head -c {megabytes}000000 > {}",
            context.join("big").display()
        );
        run(Command::new("sh").args(["-c", &script]))?;
        self.dockerfile(name, "FROM scratch\nCOPY big /big\n")?;
        self.give(&context)?;
        Ok(context)
    }

    fn give(&self, folder: &Path) -> Outcome {
        users::own_folder(folder, self.user.as_ref()).map(drop)
    }
}

/// Changes a file, to something else in each round.
pub(super) fn change(file: &Path, round: u32) -> Outcome {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("could not read a fixture: {error}")))?;
    let nonce = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    write(file, format!("{text}/* {round} {nonce} */\n"))
}

/// Copies an image into the registry.
fn offer(from: &str, name: &str) -> Outcome {
    run(Command::new("skopeo").args([
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        from,
        &format!("docker://{name}"),
    ]))
}

/// Makes a Debian root with some packages once, and offers it as an image of two layers: the second one is of what
/// this machine has beside.
fn offer_debian(kept: &Path, packages: &str, name: &str, reference: &str) -> Outcome {
    let layout = kept.join(name).join("layout");
    if !layout.join("index.json").exists() {
        let tar = kept.join(format!("{name}.tar"));
        write(&kept.join("made-by"), "cargo xtask bench\n")?;
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=apt", "--quiet"]);
        if !packages.is_empty() {
            command.arg(format!("--include={packages}"));
        }
        run(command.arg("bookworm").arg(&tar))?;
        let second = kept.join(format!("{name}-second.tar"));
        let folders = ["usr/share/zoneinfo", "usr/share/perl", "usr/share/i18n"];
        let root = ["--ignore-failed-read", "--owner=0", "--group=0", "-C", "/"];
        run(Command::new("tar").arg("-cf").arg(&second).args(root).args(folders))?;
        remove_dir(&layout)?;
        base::layout_of(&layout, &[&tar, &second], r#""Cmd":["bash"]"#)?;
        output(Command::new("rm").arg("-f").args([&tar, &second]))?;
    }
    offer(&format!("oci:{}:latest", layout.display()), reference)
}
