//! Credentials: who gets them, and who does not.

use expect_test::expect;

use super::*;
use crate::registry::error::ErrorKind;

/// A registry that wants the token `T`, and gives it to the user `u` with password `p`.
fn guarded(seen: &Seen, own: &str) -> Reply {
    if seen.target.starts_with("/token") {
        return if seen.header("authorization") == "Basic dTpw" {
            reply(200, r#"{"token":"T","expires_in":300}"#)
        } else {
            reply(401, r#"{"details":"who are you"}"#)
        };
    }
    if seen.header("authorization") == "Bearer T" {
        return reply(200, "blob");
    }
    let challenge = format!("Bearer realm=\"http://{own}/token\",service=\"s\",scope=\"x\"");
    reply(401, "").with("WWW-Authenticate", challenge)
}

async fn guarded_server() -> Server {
    Server::start(|seen, _| guarded(seen, seen.header("host"))).await
}

#[tokio::test]
async fn a_token_is_fetched_once_and_shared() {
    let server = guarded_server().await;
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, server.address);
    let registry = client("", &auths);
    let reference = server.reference("a/app");
    let descriptor = blob(b"blob");
    registry.blob_bytes(&reference, &descriptor, 100).await.unwrap();
    expect![[r#"
        GET /v2/a/app/blobs/BLOB
        GET /token?service=s&scope=repository%3Aa%2Fapp%3Apull&scope=x&account=u
        GET /v2/a/app/blobs/BLOB
    "#]]
    .assert_eq(&server.log().replace(&descriptor.digest.to_string(), "BLOB"));
    let fetches = (0..8).map(|_| registry.blob_bytes(&reference, &descriptor, 100));
    for result in futures_util::future::join_all(fetches).await {
        result.unwrap();
    }
    let tokens = server.seen().iter().filter(|it| it.target.starts_with("/token")).count();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn concurrent_requests_share_the_fetch() {
    let server = guarded_server().await;
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, server.address);
    let registry = client("", &auths);
    let (reference, descriptor) = (server.reference("a/app"), blob(b"blob"));
    let fetches = (0..8).map(|_| registry.blob_bytes(&reference, &descriptor, 100));
    for result in futures_util::future::join_all(fetches).await {
        result.unwrap();
    }
    let tokens = server.seen().iter().filter(|it| it.target.starts_with("/token")).count();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn a_refusal_tells_what_was_tried() {
    let server = guarded_server().await;
    let reference = server.reference("app");
    let without = client("", "").blob_bytes(&reference, &blob(b"blob"), 100).await.unwrap_err();
    assert_eq!(without.kind(), ErrorKind::Unauthorized);
    assert!(without.to_string().contains("who are you"), "{without}");
    assert!(without.hint().unwrap().contains("no credentials for 127.0.0.1:"));
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dTpx"}}}}}}"#, server.address);
    let wrong = client("", &auths).blob_bytes(&reference, &blob(b"blob"), 100).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Unauthorized);
    assert!(wrong.hint().unwrap().starts_with("tried as user `u` from "));
}

#[tokio::test]
async fn basic_credentials_suffice_where_they_are_wanted() {
    let server = Server::start(|seen, _| match seen.header("authorization") {
        "Basic dTpw" => reply(200, "blob"),
        _ => reply(401, "").with("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, server.address);
    let registry = client("", &auths);
    let reference = server.reference("app");
    registry.blob_bytes(&reference, &blob(b"blob"), 100).await.unwrap();
    registry.blob_bytes(&reference, &blob(b"blob"), 100).await.unwrap();
    assert_eq!(server.seen().len(), 3, "the challenge is remembered");
}

#[tokio::test]
async fn identity_tokens_are_exchanged() {
    let server = Server::start(|seen, _| {
        if seen.target == "/token" && seen.method == "POST" {
            let body = String::from_utf8(seen.body.clone()).unwrap();
            assert!(body.contains("grant_type=refresh_token"), "{body}");
            assert!(body.contains("refresh_token=secret"), "{body}");
            return reply(200, r#"{"access_token":"T"}"#);
        }
        guarded(seen, seen.header("host"))
    })
    .await;
    let auths = format!(r#"{{"auths":{{"{}":{{"identitytoken":"secret"}}}}}}"#, server.address);
    let reference = server.reference("app");
    client("", &auths).blob_bytes(&reference, &blob(b"blob"), 100).await.unwrap();
}

#[tokio::test]
async fn redirects_do_not_carry_credentials_elsewhere() {
    let elsewhere = Server::start(|_, _| reply(200, "blob")).await;
    let target = format!("http://{}/cdn?sig=1", elsewhere.address);
    let server = Server::start(move |seen, _| {
        let answer = guarded(seen, seen.header("host"));
        if answer.status == 200 && !seen.target.starts_with("/token") {
            return reply(307, "").with("Location", target.clone());
        }
        answer
    })
    .await;
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, server.address);
    let reference = server.reference("app");
    client("", &auths).blob_bytes(&reference, &blob(b"blob"), 100).await.unwrap();
    assert_eq!(elsewhere.seen().len(), 1);
    assert_eq!(elsewhere.seen()[0].header("authorization"), "");
}
