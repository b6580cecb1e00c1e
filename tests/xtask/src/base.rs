//! A small base image as a local OCI layout, made from this machine's busybox with ordinary tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Failure, Outcome, output, program, remove_dir, run, write};

/// Makes an OCI layout with one busybox image in `folder` and returns its path. The same busybox gives the same digest.
pub(crate) fn busybox_layout(folder: &Path) -> Outcome<PathBuf> {
    let busybox = program("busybox").ok_or_else(|| {
        Failure::new("there is no busybox to make a base image from: install busybox-static")
    })?;
    let (tree, layout) = (folder.join("tree"), folder.join("layout"));
    remove_dir(&tree)?;
    remove_dir(&layout)?;
    fill_tree(&tree, &busybox)?;

    let layer_file = folder.join("layer.tar");
    run(Command::new("tar")
        .args([
            "--sort=name",
            "--format=pax",
            "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        ])
        .args(["--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"])
        .arg(&layer_file)
        .arg("-C")
        .arg(&tree)
        .arg("."))?;
    layout_of(&layout, &[&layer_file], r#""Cmd":["sh"]"#)?;
    Ok(layout)
}

/// Makes an OCI layout with one image of these layers; `settings` are members of the config's inner object.
pub(crate) fn layout_of(layout: &Path, layer_files: &[&Path], settings: &str) -> Outcome {
    let (mut diff_ids, mut layers) = (Vec::new(), Vec::new());
    for file in layer_files {
        let layer = std::fs::read(file).map_err(|error| {
            Failure::new(format!("could not read `{}`: {error}", file.display()))
        })?;
        let digest = put(layout, &layer)?;
        diff_ids.push(format!(r#""sha256:{digest}""#));
        layers.push(format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{digest}","size":{}}}"#,
            layer.len()
        ));
    }
    let (diff_ids, layers) = (diff_ids.join(","), layers.join(","));
    let history =
        vec![r#"{"created":"2020-01-01T00:00:00Z","created_by":"cargo xtask"}"#; layer_files.len()];
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],{settings}}},"rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}},"history":[{}]}}"#,
        oci_architecture(),
        history.join(",")
    );
    let config_digest = put(layout, config.as_bytes())?;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{config_digest}","size":{}}},"layers":[{layers}]}}"#,
        config.len()
    );
    let manifest_digest = put(layout, manifest.as_bytes())?;
    write(
        &layout.join("index.json"),
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{manifest_digest}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#,
            manifest.len()
        ),
    )?;
    write(&layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
}

/// The root file system: busybox under all its names, and the few files that programs expect.
fn fill_tree(tree: &Path, busybox: &Path) -> Outcome {
    let content = std::fs::read(busybox).map_err(|error| {
        Failure::new(format!("could not read `{}`: {error}", busybox.display()))
    })?;
    write(&tree.join("bin/busybox"), content)?;
    for folder in ["etc", "root", "tmp", "usr/bin", "var"] {
        run_quiet(Command::new("mkdir").arg("-p").arg(tree.join(folder)))?;
    }
    write(
        &tree.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    write(&tree.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    run_quiet(Command::new("chmod").arg("755").arg(tree.join("bin/busybox")))?;
    run_quiet(Command::new("chmod").arg("1777").arg(tree.join("tmp")))?;
    for applet in
        output(Command::new(busybox).arg("--list"))?.lines().filter(|name| *name != "busybox")
    {
        let link = tree.join("bin").join(applet);
        std::os::unix::fs::symlink("busybox", &link).map_err(|error| {
            Failure::new(format!("could not make `{}`: {error}", link.display()))
        })?;
    }
    Ok(())
}

fn run_quiet(command: &mut Command) -> Outcome {
    output(command).map(drop)
}

/// Stores bytes as a blob and returns their digest in hex.
fn put(layout: &Path, content: &[u8]) -> Outcome<String> {
    let blobs = layout.join("blobs/sha256");
    let unnamed = blobs.join("unnamed");
    write(&unnamed, content)?;
    let line = output(Command::new("sha256sum").arg(&unnamed))?;
    let hex =
        line.split_whitespace().next().unwrap_or_default().trim_start_matches('\\').to_owned();
    std::fs::rename(&unnamed, blobs.join(&hex))
        .map_err(|error| Failure::new(format!("could not name a blob: {error}")))?;
    Ok(hex)
}

/// The processor's name as the OCI specification writes it.
fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
