//! Pulling from registries that misbehave.

use std::io::Read as _;

use expect_test::{Expect, expect};

use super::*;
use crate::registry::error::{ErrorKind, RegistryError};
use crate::registry::no_progress;
use crate::registry::resolve::{MAX_MANIFEST_BYTES, Resolve, Resolved};

async fn resolve(registry: &Registry, reference: &Reference) -> Result<Resolved, RegistryError> {
    let platform = amd64();
    let question = Resolve { reference, platform: &platform, last_known: None, local: &|_| None };
    registry.resolve(question).await
}

fn image(seen: &Seen) -> Reply {
    if seen.target.contains("/manifests/") {
        return reply(200, manifest()).with("Content-Type", media_type::OCI_MANIFEST);
    }
    reply(200, CONFIG)
}

async fn fetch(
    registry: &Registry,
    server: &Server,
    bytes: &[u8],
) -> Result<Vec<u8>, RegistryError> {
    let all = registry.blob_bytes(&server.reference("app"), &blob(bytes), 1 << 20).await?;
    Ok(all.to_vec())
}

fn check_error(server: &Server, error: &RegistryError, kind: ErrorKind, want: &Expect) {
    assert_eq!(error.kind(), kind);
    want.assert_eq(&error.to_string().replace(&server.address.to_string(), "HOST"));
}

#[tokio::test]
async fn an_image_by_tag_takes_two_requests() {
    let server = Server::start(|seen, _| image(seen)).await;
    let resolved = resolve(&client("", ""), &server.reference("app:1")).await.unwrap();
    assert_eq!(resolved.config_bytes, CONFIG);
    assert_eq!(resolved.top, resolved.manifest);
    assert_eq!(resolved.top.digest, id(&manifest()));
    expect![[r#"
        GET /v2/app/manifests/1
        GET /v2/app/blobs/sha256:9d99a75171aea000c711b34c0e5e3f28d3d537dd99d110eafbfbc2bd8e52c2bf
    "#]]
    .assert_eq(&server.log());
    assert!(server.seen()[0].header("accept").contains(media_type::DOCKER_INDEX));
}

#[tokio::test]
async fn an_index_leads_to_its_platform() {
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[
            {{"digest":"{}","size":7,"platform":{{"os":"linux","architecture":"arm64"}}}},
            {{"digest":"{}","size":{},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        media_type::OCI_INDEX,
        id(b"other"),
        id(&manifest()),
        manifest().len()
    );
    let body = index.clone();
    let server = Server::start(move |seen, _| {
        if seen.target.ends_with("/latest") { reply(200, body.as_str()) } else { image(seen) }
    })
    .await;
    let registry = client("", "");
    let resolved = resolve(&registry, &server.reference("app")).await.unwrap();
    assert_eq!(resolved.top.digest, id(index.as_bytes()));
    assert_eq!(resolved.top.media_type, media_type::OCI_INDEX);
    assert_eq!(resolved.index.as_deref(), Some(index.as_bytes()));
    assert_eq!(resolved.manifest.digest, id(&manifest()));

    let s390x = Platform::new("linux", "s390x");
    let reference = server.reference("app");
    let question =
        Resolve { reference: &reference, platform: &s390x, last_known: None, local: &|_| None };
    let error = registry.resolve(question).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoPlatform);
    assert_eq!(error.hint(), Some("it exists for linux/arm64, linux/amd64"));
}

#[tokio::test]
async fn what_is_at_hand_is_not_fetched() {
    let server = Server::start(|_, _| {
        reply(200, "").with("Docker-Content-Digest", id(&manifest()).to_string())
    })
    .await;
    let at_hand =
        |wanted: &BlobId| [manifest(), CONFIG.to_vec()].into_iter().find(|it| id(it) == *wanted);
    let registry = client("", "");
    let (platform, by_tag) = (amd64(), server.reference("app:1"));
    let question = Resolve {
        reference: &by_tag,
        platform: &platform,
        last_known: Some(id(&manifest())),
        local: &at_hand,
    };
    registry.resolve(question).await.unwrap();
    expect![[r#"
        HEAD /v2/app/manifests/1
    "#]]
    .assert_eq(&server.log());
    let by_digest = by_tag.with_digest(id(&manifest()).0);
    let question =
        Resolve { reference: &by_digest, platform: &platform, last_known: None, local: &at_hand };
    registry.resolve(question).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn wrong_manifests_are_refused() {
    let server = Server::start(|seen, _| match seen.target.rsplit('/').next() {
        Some("lie") => reply(200, manifest()).with("Docker-Content-Digest", id(b"x").to_string()),
        Some("huge") => reply(200, vec![b' '; MAX_MANIFEST_BYTES + 1]),
        Some("old") => reply(200, r#"{"schemaVersion":1}"#),
        Some("none") => {
            reply(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
        }
        _ => reply(200, manifest()),
    })
    .await;
    let registry = client("", "");
    let check = async |name: &str, kind, want: Expect| {
        let error = resolve(&registry, &server.reference(name)).await.unwrap_err();
        check_error(&server, &error, kind, &want);
    };
    check("app:lie", ErrorKind::DigestMismatch, expect!["cannot resolve `HOST/app:lie`: HOST gave a manifest with digest sha256:24e7388ccc7cf7c5227c7b4fb95629dfd6ef777e33dfbd69674844890fcc49a8 for sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"]).await;
    check("app:huge", ErrorKind::TooLarge, expect!["cannot resolve `HOST/app:huge`: http://HOST/v2/app/manifests/huge answers with more than 4194304 bytes"]).await;
    check("app:old", ErrorKind::Unsupported, expect!["cannot resolve `HOST/app:old`: the manifest is in Docker's old schema 1, which is not supported"]).await;
    check("app:none", ErrorKind::NotFound, expect!["cannot resolve `HOST/app:none`: not found: manifest unknown (404 from http://HOST/v2/app/manifests/none)"]).await;
    let other = format!("app@{}", id(b"other"));
    check(&other, ErrorKind::DigestMismatch, expect!["cannot resolve `HOST/app@sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa`: HOST gave a manifest with digest sha256:24e7388ccc7cf7c5227c7b4fb95629dfd6ef777e33dfbd69674844890fcc49a8 for sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"]).await;
}

#[tokio::test]
async fn a_broken_download_is_resumed() {
    let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let body = bytes.clone();
    let server = Server::start(move |seen, _| {
        let Some(start) = seen.header("range").strip_prefix("bytes=") else {
            return reply(200, body.clone()).cut(300_000);
        };
        let start: usize = start.trim_end_matches('-').parse().unwrap();
        let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
        let reply = reply(206, &body[start..]).with("Content-Range", range);
        let rest = body.len() - start;
        if rest > 300_000 { reply.cut(200_000) } else { reply }
    })
    .await;
    assert_eq!(fetch(&client("", ""), &server, &bytes).await.unwrap(), bytes);
    assert!(server.seen().len() >= 3, "{}", server.log());
}

#[tokio::test]
async fn a_server_without_ranges_starts_again() {
    let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let body = bytes.clone();
    let server = Server::start(move |_, number| {
        let reply = reply(200, body.clone());
        if number == 0 { reply.cut(300_000) } else { reply }
    })
    .await;
    assert_eq!(fetch(&client("", ""), &server, &bytes).await.unwrap(), bytes);
}

#[tokio::test]
async fn failures_pass_and_are_bounded() {
    let server =
        Server::start(|seen, number| match seen.target.contains(&id(b"late").to_string()) {
            true if number == 0 => reply(503, ""),
            true if number == 1 => reply(429, "").with("Retry-After", "0"),
            true => reply(200, "late"),
            false => reply(500, ""),
        })
        .await;
    let registry = client("", "");
    assert_eq!(fetch(&registry, &server, b"late").await.unwrap(), b"late");
    let error = fetch(&registry, &server, b"never").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn wrong_blobs_are_refused() {
    let server = Server::start(|seen, _| {
        if seen.target.contains(&id(b"circle").to_string()) {
            return reply(307, "").with("Location", seen.target.clone());
        }
        if seen.target.contains(&id(b"short").to_string()) {
            return reply(200, "short").cut(0);
        }
        reply(200, "lying")
    })
    .await;
    let registry = client("", "");
    let check = async |bytes: &[u8], kind, want: Expect| {
        let error = fetch(&registry, &server, bytes).await.unwrap_err();
        check_error(&server, &error, kind, &want);
    };
    check(b"truth", ErrorKind::DigestMismatch, expect!["cannot fetch blob sha256:c5c4bad89ee44b4da0321344964f145dd3023fc1ab0d9c2473e2716b788481ae of `HOST/app`: HOST gave a blob with digest sha256:487225c5b1d422991e2218a325ef283ccb259a4e2ca4437bb72ab59add480a12 for sha256:c5c4bad89ee44b4da0321344964f145dd3023fc1ab0d9c2473e2716b788481ae"]).await;
    check(b"longer", ErrorKind::Truncated, expect!["cannot fetch blob sha256:73834addcec75fafd7d73717ca1614a1324652ffa70b4b6c44fa359ae5a69dab of `HOST/app`: HOST announces 5 bytes, the manifest says 6"]).await;
    check(b"circle", ErrorKind::Invalid, expect!["cannot fetch blob sha256:8a39178d327e72a92d3b9800e55c5e95930f7ef61605464fe8cb43899abd1367 of `HOST/app`: more than 10 redirects from http://HOST/v2/app/blobs/sha256:8a39178d327e72a92d3b9800e55c5e95930f7ef61605464fe8cb43899abd1367"]).await;
    check(b"short", ErrorKind::Unreachable, expect!["cannot fetch blob sha256:f9b0078b5df596d2ea19010c001bbd009e651de2c57e8fb7e355f31eb9d3f739 of `HOST/app`: the connection to HOST broke: end of file before message length reached"]).await;
    assert_eq!(server.seen().len(), 1 + 1 + 11 + 3);
}

#[tokio::test]
async fn mirrors_come_first_and_the_registry_last() {
    let registry_server = Server::start(|seen, _| image(seen)).await;
    let empty = Server::start(|_, _| reply(404, "")).await;
    let config = format!(
        "[registry.\"{0}\"]\nmirrors = [\"127.0.0.1:1\", \"{1}/sub\"]",
        registry_server.address, empty.address
    );
    let reference = registry_server.reference("app");
    resolve(&client(&config, ""), &reference).await.unwrap();
    let log = empty.log().replace(&registry_server.address.to_string(), "REGISTRY");
    let log = log.replace(&registry_server.address.to_string().replace(':', "%3A"), "REGISTRY");
    expect![[r#"
        GET /v2/sub/app/manifests/latest?ns=REGISTRY
        GET /v2/sub/app/blobs/sha256:9d99a75171aea000c711b34c0e5e3f28d3d537dd99d110eafbfbc2bd8e52c2bf?ns=REGISTRY
    "#]].assert_eq(&log);
}

#[tokio::test]
async fn a_host_that_is_down_is_told() {
    let server = Server::start(|_, _| reply(200, "")).await;
    let registry = client("[registry.\"127.0.0.1:1\"]\nhttp = true", "");
    let error = resolve(&registry, &"127.0.0.1:1/app".parse().unwrap()).await.unwrap_err();
    check_error(
        &server,
        &error,
        ErrorKind::Unreachable,
        &expect![
            "cannot resolve `127.0.0.1:1/app`: 127.0.0.1:1 cannot be reached: Connection refused (os error 111)"
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_thread_can_read_along() {
    let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let body = bytes.clone();
    let server = Server::start(move |_, _| reply(200, body.clone())).await;
    let download = client("", "").download(&server.reference("app"), &blob(&bytes)).unwrap();
    let mut reader = download.into_reader(no_progress());
    let reading = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    assert_eq!(reading.await.unwrap().unwrap(), bytes);
}
