//! Blobs that are pushed while they are written.

use std::io::Write as _;

use expect_test::expect;

use super::*;
use crate::blobs::BlobWriter;
use crate::growing::{Growing, Growth};
use crate::local::Store;
use crate::registry::no_progress;
use crate::registry::push::Delivery;

/// A blob of which half is written.
struct Half {
    _place: (tempfile::TempDir, Store),
    writer: BlobWriter,
    growth: Growth,
    growing: Growing,
}

const FIRST: &[u8] = b"first half, ";
const SECOND: &[u8] = b"second half";

fn half() -> Half {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (path, growth, growing) = store.blobs().growing().unwrap();
    let mut writer = store.blobs().writer_into(path).unwrap();
    writer.write_all(FIRST).unwrap();
    Half { _place: (dir, store), writer, growth, growing }
}

impl Half {
    fn finish(mut self) -> BlobId {
        self.writer.write_all(SECOND).unwrap();
        let (id, size) = self.writer.finish().unwrap();
        self.growth.finish(id, size);
        id
    }
}

/// Pushes a blob that is finished when the push has begun.
async fn push(server: &Server) -> (Result<Option<Delivery>, super::super::RegistryError>, String) {
    let half = half();
    let (growing, target) = (half.growing.clone(), server.reference("a/app:1"));
    let pushing = tokio::spawn(async move {
        client("", "").push_growing(&target, &growing, &no_progress()).await
    });
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    let id = half.finish();
    let done = pushing.await.unwrap();
    (
        done,
        server
            .log()
            .replace(&id.to_string().replace(':', "%3A"), "BLOB")
            .replace(&id.to_string(), "BLOB"),
    )
}

fn uploads(seen: &Seen) -> Reply {
    match seen.method.as_str() {
        "POST" => reply(202, "").with("Location", "/v2/a/app/blobs/uploads/1?state=s"),
        "PATCH" => reply(202, "").with("Location", "/v2/a/app/blobs/uploads/2?state=t"),
        "DELETE" => reply(204, ""),
        _ => reply(201, ""),
    }
}

#[tokio::test]
async fn bytes_go_out_before_the_digest_is_known() {
    let server = Server::start(|seen, _| uploads(seen)).await;
    let (done, log) = push(&server).await;
    assert_eq!(done.unwrap(), Some(Delivery::Uploaded));
    expect![[r#"
        POST /v2/a/app/blobs/uploads/
        PATCH /v2/a/app/blobs/uploads/1?state=s
        PUT /v2/a/app/blobs/uploads/2?state=t&digest=BLOB
    "#]]
    .assert_eq(&log);
    let seen = server.seen();
    assert_eq!(seen[1].body, [FIRST, SECOND].concat());
    assert_eq!(seen[1].header("transfer-encoding"), "chunked");
    assert_eq!(seen[1].header("content-length"), "");
}

#[tokio::test]
async fn a_token_that_runs_out_is_renewed_and_all_is_sent_again() {
    let server = Server::start(|seen, number| match (seen.target.as_str(), number) {
        (target, _) if target.starts_with("/token") => {
            reply(200, format!(r#"{{"token":"t{number}"}}"#))
        }
        (_, 1 | 4) => {
            let realm =
                format!(r#"Bearer realm="http://{}/token",service="s""#, seen.header("host"));
            reply(401, "").with("Www-Authenticate", realm)
        }
        _ => uploads(seen),
    })
    .await;
    let (done, log) = push(&server).await;
    assert_eq!(done.unwrap(), Some(Delivery::Uploaded), "{log}");
    let seen = server.seen();
    let bodies: Vec<_> = seen.iter().filter(|it| it.method == "PATCH").map(|it| &it.body).collect();
    assert!(bodies.iter().all(|it| **it == [FIRST, SECOND].concat()), "{log}");
}

#[tokio::test]
async fn a_registry_that_takes_no_chunks_may_get_the_whole() {
    for refusal in [400, 405, 411, 413, 500] {
        let server = Server::start(move |seen, _| match seen.method.as_str() {
            "PATCH" => reply(refusal, ""),
            _ => uploads(seen),
        })
        .await;
        let (done, log) = push(&server).await;
        assert_eq!(done.unwrap(), None, "{refusal}");
        assert!(log.ends_with("DELETE /v2/a/app/blobs/uploads/1?state=s\n"), "{log}");
    }
}

#[tokio::test]
async fn a_registry_that_lost_bytes_is_not_believed() {
    let server = Server::start(|seen, _| match seen.method.as_str() {
        "PATCH" => uploads(seen).with("Range", "0-3"),
        _ => uploads(seen),
    })
    .await;
    let (done, log) = push(&server).await;
    assert_eq!(done.unwrap(), None);
    assert!(!log.contains("PUT"), "{log}");
}

#[tokio::test]
async fn a_registry_that_refuses_every_upload_is_an_error() {
    let server = Server::start(|_, _| reply(403, "")).await;
    let (done, _) = push(&server).await;
    assert_eq!(done.unwrap_err().kind(), crate::registry::ErrorKind::Denied);
}

#[tokio::test]
async fn a_layer_that_is_given_up_is_not_in_the_registry() {
    let server = Server::start(|seen, _| uploads(seen)).await;
    let half = half();
    let (growing, target) = (half.growing.clone(), server.reference("a/app:1"));
    let pushing = tokio::spawn(async move {
        client("", "").push_growing(&target, &growing, &no_progress()).await
    });
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(half);
    assert!(!matches!(pushing.await.unwrap(), Ok(Some(_))));
    assert!(!server.log().contains("PUT"));
}
