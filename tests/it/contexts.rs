//! Build contexts other than a directory: standard input, web servers, git repositories.

use std::path::Path;
use std::process::Command;

use rbuild_tests::host::User;
use rbuild_tests::image::{Layer, Meta, OPEN, gzip};
use rbuild_tests::needs;
use rbuild_tests::space::TestSpace;
use rbuild_tests::web::Web;

const MINE: Meta = Meta { mode: 0o640, uid: 5, gid: 6 };

/// A context with an owner, a hard link, an ignore file, and a Dockerfile behind a link.
fn archive() -> Vec<u8> {
    Layer::new()
        .symlink("Dockerfile", "build/Dockerfile.web")
        .file("build/Dockerfile.web", OPEN, "FROM scratch\nCOPY own other ignored /\n")
        .file("own", MINE, "mine")
        .hard_link("other", MINE, "own")
        .file(".dockerignore", OPEN, "ignored\n")
        .file("ignored", OPEN, "here")
        .finish()
}

#[test]
fn an_archive_on_standard_input_keeps_its_owners_and_links() {
    let space = TestSpace::new();
    for bytes in [archive(), gzip(&archive())] {
        let tree = space.image_of("-", &[], &bytes).tree();
        let own = tree.at("own");
        assert_eq!((own.mode, own.uid, own.gid), (0o640, 5, 6));
        assert_eq!(tree.read("other"), "mine");
        // Ignore files count in directories alone.
        assert_eq!(tree.read("ignored"), "here");
    }
}

#[test]
fn a_dockerfile_on_standard_input_has_an_empty_context() {
    let space = TestSpace::new();
    let text = b"FROM scratch\nCOPY <<a /a\nb\na\n";
    assert_eq!(space.image_of("-", &[], text).tree().read("a"), "b\n");
    let copying = b"FROM scratch\nCOPY x /\n";
    space.build_of("-", &[], copying).ended(1).says("\"/x\": not found").says(">>> COPY x /");
    let ambiguous = space.build_of("-", &["-f", "Dockerfile"], text);
    ambiguous.ended(2).says("ambiguous Dockerfile source").says_a_way_out();
    space.write("x", "1");
    assert_eq!(space.image_of(".", &["-f", "-"], copying).tree().read("x"), "1");
}

#[test]
fn broken_archives_are_refused() {
    let space = TestSpace::new();
    let whole = gzip(&archive());
    space
        .build_of("-", &[], &whole[..whole.len() / 2])
        .ended(1)
        .says("the context is not a readable archive");
    let without = Layer::new().file("x", OPEN, "").finish();
    space.build_of("-", &[], &without).ended(1).says("failed to read dockerfile").says_a_way_out();
}

#[test]
fn names_in_archives_do_not_lead_out_of_them() {
    let space = TestSpace::new();
    let hostile = Layer::new()
        .file("Dockerfile", OPEN, "FROM scratch\nCOPY . /all/\n")
        .symlink("out", "/etc")
        .file("out/passwd", OPEN, "not this machine's")
        .finish();
    let tree = space.image_of("-", &[], &hostile).tree();
    assert_eq!(tree.at("all/out").target, "/etc");
    assert_eq!(tree.read("all/etc/passwd"), "not this machine's");
    assert!(!std::fs::read_to_string("/etc/passwd").unwrap().contains("not this"));
    let linked = Layer::new().symlink("Dockerfile", "../../../../etc/passwd").finish();
    space.build_of("-", &[], &linked).ended(1).says("failed to read dockerfile");
}

#[test]
fn a_web_server_has_an_archive_or_a_dockerfile() {
    let (space, web) = (TestSpace::new(), Web::start());
    web.put("/context.tgz", &[], gzip(&archive()));
    let tree = space.image_of(&web.url("/context.tgz"), &[], b"").tree();
    assert_eq!(tree.at("own").uid, 5);
    assert_eq!(web.requests(), ["GET /context.tgz 200"], "it is fetched once");
    web.put("/df", &[], "FROM scratch\nCOPY context /text\n");
    let tree = space.image_of(&web.url("/df"), &["-f", "any"], b"").tree();
    assert_eq!(tree.read("text"), "FROM scratch\nCOPY context /text\n");
    space.write("Own", "FROM scratch\nCOPY own /own\n");
    let own = space.path("context/Own").to_string_lossy().into_owned();
    let tree = space.image_of(&web.url("/context.tgz"), &["-f", &own], b"").tree();
    assert_eq!(tree.read("own"), "mine");
    space.build_of(&web.url("/none"), &[], b"").ended(4).says("404");
}

#[test]
fn a_dockerfile_can_be_fetched_for_a_directory() {
    let (space, web) = (TestSpace::new(), Web::start());
    web.put("/df", &[], "FROM scratch\nCOPY x /\n");
    space.write("x", "1");
    assert_eq!(space.image(&["-f", &web.url("/df")]).tree().read("x"), "1");
}

#[test]
fn a_named_web_file_is_called_context() {
    let (space, web) = (TestSpace::new(), Web::start());
    web.put("/some.bin", &[], "bytes");
    space.write("Dockerfile", "FROM scratch\nCOPY --from=file /context /it\n");
    let named = format!("file={}", web.url("/some.bin"));
    assert_eq!(space.image(&["--build-context", &named]).tree().read("it"), "bytes");
}

/// Runs `git` in a repository.
fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository on a web server: two commits on `trunk`, an annotated tag, a branch, an evil link.
pub(crate) struct Repository {
    pub(crate) url: String,
    pub(crate) first: String,
    pub(crate) second: String,
    _web: Web,
    folder: tempfile::TempDir,
}

impl Repository {
    /// Where it is on this machine.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Lets another user read it by its path.
    pub(crate) fn give_to(&self, user: &User) {
        let owner = format!("{}:{}", user.uid, user.gid);
        let given = Command::new("chown").arg("-R").arg(owner).arg(self.path()).status().unwrap();
        assert!(given.success());
    }
}

pub(crate) fn repository(format: &str) -> Repository {
    let folder = tempfile::tempdir().unwrap();
    let (path, web) = (folder.path(), Web::start());
    git(path, &["init", "--quiet", "--initial-branch=trunk", &format!("--object-format={format}")]);
    let commit = |text: &str| {
        std::fs::write(path.join("file"), text).unwrap();
        git(path, &["add", "--all"]);
        git(path, &["commit", "--quiet", "--message", text]);
        git(path, &["rev-parse", "HEAD"])
    };
    std::fs::create_dir(path.join("sub")).unwrap();
    std::fs::write(path.join("Dockerfile"), "FROM scratch\nCOPY file /\n").unwrap();
    std::fs::write(path.join("sub/Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    std::os::unix::fs::symlink("/etc", path.join("evil")).unwrap();
    let first = commit("first");
    git(path, &["tag", "--annotate", "--message=v1", "v1"]);
    git(path, &["branch", "old"]);
    let second = commit("second");
    git(path, &["update-server-info"]);
    web.serve(path.to_owned());
    Repository { url: web.url("/.git"), first, second, _web: web, folder }
}

#[test]
fn a_repository_is_a_context() {
    needs!(Program("git"));
    for format in ["sha1", "sha256"] {
        let (space, repository) = (TestSpace::new(), repository(format));
        let Repository { url, first, second, .. } = &repository;
        let file = |address: &str| space.image_of(address, &[], b"").tree().read("file");
        assert_eq!(file(url), "second");
        for address in ["#v1", "#old", "?tag=v1", "?branch=old", "?ref=refs/heads/old"] {
            assert_eq!(file(&format!("{url}{address}")), "first", "{address}");
        }
        assert_eq!(file(&format!("{url}#{first}")), "first");
        assert_eq!(file(&format!("{url}?ref=v1&commit={first}")), "first");
        assert_eq!(file(&format!("{url}?commit={}", &second[..8])), "second");
        let sub = space.image_of(&format!("{url}?subdir=sub"), &[], b"").tree();
        assert_eq!(sub.paths(), ["Dockerfile"]);
    }
}

#[test]
fn what_is_not_in_a_repository_is_told() {
    needs!(Program("git"));
    let (space, repository) = (TestSpace::new(), repository("sha1"));
    let Repository { url, first, .. } = &repository;
    let refused = |address: &str, text: &str| {
        space.build_of(&format!("{url}{address}"), &[], b"").ended(1).says(text);
    };
    refused("#none", "repository does not contain ref none");
    refused("?branch=v1", "repository does not contain ref refs/heads/v1");
    refused(&format!("?commit={first}"), "expected checksum to match");
    refused("?checksum=xyz", "expected hex commit hash");
    refused("#:none", "has no directory `none`");
    refused("#:evil", "has no directory `evil`");
    refused("#v1?x=1", "repository does not contain ref v1?x=1");
    refused("?x=1", "unexpected query \"x\"");
    refused("?tag=v1&branch=old", "branch conflicts with tag");
}

#[test]
fn a_kept_repository_tells_its_commit_and_its_address() {
    needs!(Program("git"));
    let (space, repository) = (TestSpace::new(), repository("sha1"));
    space.write(
        "Dockerfile",
        &format!("FROM scratch\nADD --keep-git-dir {}#v1 /r/\n", repository.url),
    );
    let tree = space.image(&[]).tree();
    assert_eq!(tree.read("r/.git/HEAD").trim(), repository.first);
    assert!(tree.nodes.contains_key("r/.git/refs/tags/v1"));
    assert!(tree.read("r/.git/config").contains(&repository.url));
    let args = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", "-f", "-"];
    let tree = space.image_of(&repository.url, &args, b"FROM scratch\nCOPY .git/HEAD /\n").tree();
    assert_eq!(tree.read("HEAD").trim(), repository.second);
}

#[test]
fn files_of_a_repository_are_as_old_as_its_commit_where_time_counts() {
    needs!(Program("git"));
    let (space, repository) = (TestSpace::new(), repository("sha1"));
    let args = ["--build-arg", "SOURCE_DATE_EPOCH=1900000000"];
    let tree = space.image_of(&repository.url, &args, b"").tree();
    assert_eq!(tree.at("file").mtime, 1_700_000_000);
}

#[test]
fn a_repository_by_ssh_needs_an_agent() {
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch\nADD git@127.0.0.1:a/b.git /\n");
    let refused = space.build(&[]).ended(1);
    refused.says("no SSH key \"default\" forwarded from the client").says_a_way_out();
}
