//! Base images: a small one of Debian's busybox-static.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use crate::host::program;
use crate::image::{Image, Layer, Meta, OPEN, PLAIN};

/// The search path of the small base image.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The small base image: busybox under all its names, root, nobody and a user `app` (1000).
///
/// # Panics
///
/// If there is no busybox on this machine: `needs!(Program("busybox"))` says so before.
pub fn busybox() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let binary = program("busybox").expect("busybox-static is installed");
        let content = std::fs::read(&binary).expect("a program can be read");
        let listed = Command::new(&binary).arg("--list").output().expect("busybox lists its names");
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        let mut layer = Layer::new().dir("bin", OPEN).file("bin/busybox", OPEN, content);
        for name in names.lines().filter(|name| *name != "busybox") {
            layer = layer.symlink(&format!("bin/{name}"), "busybox");
        }
        let layer = layer
            .dir("dev", OPEN)
            .dir("etc", OPEN)
            .file("etc/group", PLAIN, "root:x:0:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n")
            .file(
                "etc/passwd",
                PLAIN,
                "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
            )
            .dir("home", OPEN)
            .dir("home/app", Meta { mode: 0o750, uid: 1000, gid: 1000 })
            .dir("proc", Meta { mode: 0o555, ..OPEN })
            .dir("root", Meta { mode: 0o700, ..OPEN })
            .dir("sys", Meta { mode: 0o555, ..OPEN })
            .dir("tmp", Meta { mode: 0o1777, ..OPEN })
            .dir("usr", OPEN)
            .dir("usr/bin", OPEN)
            .dir("var", OPEN);
        Image::new(&[layer.finish()], &json!({ "Env": [PATH], "Cmd": ["sh"] }))
    })
}
