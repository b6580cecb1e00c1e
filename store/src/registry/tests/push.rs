//! Pushing to registries with habits.

use bytes::Bytes;
use expect_test::expect;

use super::*;
use crate::registry::error::ErrorKind;
use crate::registry::no_progress;
use crate::registry::push::{BlobSource, Delivery, PushBlob, PushImage, PushManifest};

fn push_blob(bytes: &'static [u8], mount_from: Vec<Reference>) -> PushBlob {
    PushBlob {
        descriptor: blob(bytes),
        source: BlobSource::Bytes(Bytes::from_static(bytes)),
        mount_from,
    }
}

fn log(server: &Server, bytes: &[u8]) -> String {
    let digest = id(bytes).to_string();
    let log = server.log().replace(&digest, "BLOB");
    log.replace(&digest.replace(':', "%3A"), "BLOB")
}

fn uploads(seen: &Seen) -> Reply {
    match seen.method.as_str() {
        "HEAD" => reply(404, ""),
        "POST" => reply(202, "").with("Location", "/v2/a/app/blobs/uploads/1?state=s"),
        "PATCH" => reply(202, "").with("Location", "/v2/a/app/blobs/uploads/2?state=t"),
        _ => reply(201, ""),
    }
}

#[tokio::test]
async fn a_blob_is_sent_whole() {
    let server = Server::start(|seen, _| uploads(seen)).await;
    let registry = client("", "");
    let target = server.reference("a/app:1");
    let one = push_blob(b"bytes", Vec::new());
    let done = registry.push_blob(&target, &one, &no_progress()).await.unwrap();
    assert_eq!(done, Delivery::Uploaded);
    expect![[r#"
        HEAD /v2/a/app/blobs/BLOB
        POST /v2/a/app/blobs/uploads/
        PUT /v2/a/app/blobs/uploads/1?state=s&digest=BLOB
    "#]]
    .assert_eq(&log(&server, b"bytes"));
    assert_eq!(server.seen()[2].body, b"bytes");
    assert_eq!(server.seen()[2].header("content-length"), "5");
    let again = registry.push_blob(&target, &one, &no_progress()).await.unwrap();
    assert_eq!(again, Delivery::Present);
    assert_eq!(server.seen().len(), 3, "what was pushed is not asked for again");
}

#[tokio::test]
async fn a_refused_mount_becomes_an_upload() {
    let server = Server::start(|seen, _| uploads(seen)).await;
    let from = vec!["docker.io/library/x".parse().unwrap(), server.reference("b/base")];
    let target = server.reference("a/app:1");
    let one = push_blob(b"bytes", from);
    let done = client("", "").push_blob(&target, &one, &no_progress()).await.unwrap();
    assert_eq!(done, Delivery::Uploaded);
    expect![[r#"
        HEAD /v2/a/app/blobs/BLOB
        POST /v2/a/app/blobs/uploads/?mount=BLOB&from=b%2Fbase
        PUT /v2/a/app/blobs/uploads/1?state=s&digest=BLOB
    "#]]
    .assert_eq(&log(&server, b"bytes"));
}

#[tokio::test]
async fn a_mount_sends_nothing() {
    let server =
        Server::start(
            |seen, _| {
                if seen.target.contains("mount=") { reply(201, "") } else { uploads(seen) }
            },
        )
        .await;
    let one = push_blob(b"bytes", vec![server.reference("b/base")]);
    let target = server.reference("a/app:1");
    let done = client("", "").push_blob(&target, &one, &no_progress()).await.unwrap();
    assert_eq!(done, Delivery::Mounted);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn pieces_where_the_whole_is_too_large() {
    let server = Server::start(|seen, number| match seen.method.as_str() {
        "PUT" if number == 2 => reply(413, ""),
        _ => uploads(seen),
    })
    .await;
    let target = server.reference("a/app:1");
    let one = push_blob(b"bytes", Vec::new());
    client("", "").push_blob(&target, &one, &no_progress()).await.unwrap();
    expect![[r#"
        HEAD /v2/a/app/blobs/BLOB
        POST /v2/a/app/blobs/uploads/
        PUT /v2/a/app/blobs/uploads/1?state=s&digest=BLOB
        POST /v2/a/app/blobs/uploads/
        PATCH /v2/a/app/blobs/uploads/1?state=s
        PUT /v2/a/app/blobs/uploads/2?state=t&digest=BLOB
    "#]]
    .assert_eq(&log(&server, b"bytes"));
    assert_eq!(server.seen()[4].header("content-range"), "0-4");
}

#[tokio::test]
async fn a_lost_session_is_begun_anew() {
    let server = Server::start(|seen, number| match seen.method.as_str() {
        "PUT" if number == 2 => reply(404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#),
        "PUT" if number == 4 => reply(500, ""),
        _ => uploads(seen),
    })
    .await;
    let target = server.reference("a/app:1");
    let one = push_blob(b"bytes", Vec::new());
    client("", "").push_blob(&target, &one, &no_progress()).await.unwrap();
    assert_eq!(server.seen().len(), 7);
}

#[tokio::test]
async fn an_image_ends_with_its_name() {
    let server = Server::start(|seen, _| uploads(seen)).await;
    let top = PushManifest {
        media_type: media_type::OCI_INDEX.to_owned(),
        bytes: Bytes::from_static(b"index"),
    };
    let image = PushImage {
        blobs: vec![push_blob(b"one", Vec::new()), push_blob(b"one", Vec::new())],
        manifests: vec![PushManifest {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            bytes: Bytes::from_static(b"manifest"),
        }],
        top,
    };
    let target = server.reference("a/app:1");
    let digest = client("", "").push(&target, image, &no_progress()).await.unwrap();
    assert_eq!(digest, id(b"index"));
    let log = log(&server, b"one").replace(&id(b"manifest").to_string(), "MANIFEST");
    expect![[r#"
        HEAD /v2/a/app/blobs/BLOB
        POST /v2/a/app/blobs/uploads/
        PUT /v2/a/app/blobs/uploads/1?state=s&digest=BLOB
        PUT /v2/a/app/manifests/MANIFEST
        PUT /v2/a/app/manifests/1
    "#]]
    .assert_eq(&log);
    let last = server.seen().pop().unwrap();
    assert_eq!(last.header("content-type"), media_type::OCI_INDEX);
}

#[tokio::test]
async fn a_registry_that_confirms_something_else_is_not_believed() {
    let server = Server::start(|seen, _| {
        uploads(seen).with("Docker-Content-Digest", id(b"other").to_string())
    })
    .await;
    let target = server.reference("a/app:1");
    let one = push_blob(b"bytes", Vec::new());
    let error = client("", "").push_blob(&target, &one, &no_progress()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DigestMismatch);
}
