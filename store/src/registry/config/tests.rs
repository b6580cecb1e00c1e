//! Tests of the module above.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;

#[track_caller]
fn check(buildkit: &str, containers: &str, name: &str, purpose: Purpose, want: &Expect) {
    let mut hosts = Hosts::default();
    hosts.add_buildkit(buildkit).unwrap();
    hosts.add_containers(containers).unwrap();
    let mut text = String::new();
    match hosts.endpoints(&name.parse().unwrap(), purpose) {
        Ok(endpoints) => {
            for it in endpoints {
                let schemes: Vec<_> = it.schemes.iter().map(|it| it.as_str()).collect();
                write!(text, "{} {}/{}", schemes.join("|"), it.host, it.path).unwrap();
                if let Some(namespace) = it.namespace {
                    write!(text, " ns={namespace}").unwrap();
                }
                if it.tls.insecure {
                    text.push_str(" insecure");
                }
                text.push('\n');
            }
        }
        Err(error) => text = error.to_string(),
    }
    want.assert_eq(&text);
}

#[test]
fn without_configuration() {
    let pull = |name: &str, want: Expect| check("", "", name, Purpose::Pull, &want);
    pull(
        "busybox",
        expect![[r#"
        https registry-1.docker.io/library/busybox
    "#]],
    );
    pull(
        "127.0.0.1:5000/a",
        expect![[r#"
        http 127.0.0.1:5000/a
    "#]],
    );
    pull(
        "[::1]:5000/a",
        expect![[r#"
        http [::1]:5000/a
    "#]],
    );
    pull(
        "localhost/a",
        expect![[r#"
        http localhost/a
    "#]],
    );
    pull(
        "10.0.0.1/a",
        expect![[r#"
        https 10.0.0.1/a
    "#]],
    );
}

const BUILDKIT: &str = r#"
    debug = true
    [registry."docker.io"]
      mirrors = ["127.0.0.1:5040", "mirror.example/hub"]
    [registry."127.0.0.1:5040"]
      http = true
      insecure = true
    [registry."mirror.example"]
      ca = ["/ca.pem"]
      [[registry."mirror.example".keypair]]
        key = "/k"
        cert = "/c"
"#;

#[test]
fn mirrors_of_buildkit() {
    check(
        BUILDKIT,
        "",
        "busybox",
        Purpose::Pull,
        &expect![[r#"
        http|https 127.0.0.1:5040/library/busybox ns=docker.io insecure
        https mirror.example/hub/library/busybox ns=docker.io
        https registry-1.docker.io/library/busybox
    "#]],
    );
    check(
        BUILDKIT,
        "",
        "busybox",
        Purpose::Push,
        &expect![[r#"
        https registry-1.docker.io/library/busybox
    "#]],
    );
}

#[test]
fn a_moved_registry_of_the_containers_tools() {
    let containers = r#"
        unqualified-search-registries = ["docker.io"]
        short-name-mode = "permissive"
        [[registry]]
        location = "127.0.0.1:5040"
        insecure = true
        [[registry]]
        prefix = "docker.io"
        location = "127.0.0.1:5040"
        insecure = true
    "#;
    check(
        "",
        containers,
        "busybox",
        Purpose::Pull,
        &expect![[r#"
        http|https 127.0.0.1:5040/library/busybox insecure
    "#]],
    );
    check(
        BUILDKIT,
        containers,
        "busybox",
        Purpose::Pull,
        &expect![[r#"
        http|https 127.0.0.1:5040/library/busybox ns=docker.io insecure
        https mirror.example/hub/library/busybox ns=docker.io
    "#]],
    );
}

#[test]
fn mirrors_of_the_containers_tools() {
    let containers = r#"
        [[registry]]
        prefix = "*.corp.example"
        location = "all.corp.example/x"
        [[registry]]
        location = "a.corp.example/team"
        [[registry.mirror]]
        location = "m1.example/t"
        insecure = true
        [[registry.mirror]]
        location = "m2.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "bad.example/sub"
        blocked = true
    "#;
    let check = |name: &str, want: Expect| check("", containers, name, Purpose::Pull, &want);
    check(
        "b.corp.example/app",
        expect![[r#"
        https all.corp.example/x/app
    "#]],
    );
    check(
        "a.corp.example/team/app",
        expect![[r#"
        https|http m1.example/t/app insecure
        https a.corp.example/team/app
    "#]],
    );
    let digest = crate::digest::Digest::of(b"");
    check(
        &format!("a.corp.example/team/app@{digest}"),
        expect![[r#"
        https|http m1.example/t/app insecure
        https m2.example/app
        https a.corp.example/team/app
    "#]],
    );
    check(
        "a.corp.example/teams/app",
        expect![[r#"
        https all.corp.example/x/teams/app
    "#]],
    );
    check("bad.example/sub/app", expect!["registries.conf blocks bad.example/sub/app"]);
    check(
        "bad.example/submarine",
        expect![[r#"
        https bad.example/submarine
    "#]],
    );
}

#[test]
fn refuses_what_it_cannot_read() {
    let mut hosts = Hosts::default();
    let error = hosts.add_containers("[registries.search]\nregistries = []").unwrap_err();
    assert_eq!(
        error.to_string(),
        "table `registries` is version 1 of the format, which is not supported"
    );
    assert!(hosts.add_buildkit("[registry").unwrap_err().to_string().contains("line 1"));
    assert!(hosts.add_containers("[[registry]]\ninsecure = true").is_err());
}

#[test]
fn files_are_found_and_later_ones_count() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = root.path().join("containers").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    };
    let moved = |to: &str| format!("[[registry]]\nprefix = \"a.io\"\nlocation = \"{to}\"");
    write("registries.conf", &moved("one.io"));
    write("registries.conf.d/2.conf", &moved("three.io"));
    write("registries.conf.d/1.conf", &moved("two.io"));
    write("registries.conf.d/3.txt", "[broken");
    let mut paths = ConfigPaths::standard(Some(root.path()));
    for places in [&mut paths.containers_defaults, &mut paths.containers_drop_ins] {
        places.retain(|it| it.starts_with(root.path()));
    }
    let host = |paths: &ConfigPaths| {
        let hosts = Hosts::load(paths).unwrap();
        hosts.endpoints(&"a.io/x".parse().unwrap(), Purpose::Pull).unwrap()[0].host.clone()
    };
    assert_eq!(host(&paths), "three.io");
    paths.containers = Some(root.path().join("containers/registries.conf"));
    assert_eq!(host(&paths), "one.io");
    paths.containers = Some(root.path().join("none"));
    let error = Hosts::load(&paths).unwrap_err().to_string();
    assert!(error.ends_with("/none: the file does not exist"), "{error}");
}
