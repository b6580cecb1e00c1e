//! Files from servers that change, break and exaggerate.

use super::*;
use crate::registry::tests::{Reply, Server, network, reply};

async fn fetch(
    server: &Server,
    path: &str,
    change: impl FnOnce(&mut Fetch<'_>),
) -> (Result<Fetched, RegistryError>, Vec<u8>) {
    let url = Url::parse(&format!("http://{}{path}", server.address)).unwrap();
    let mut question =
        Fetch { url: &url, headers: &[], known: None, checksum: None, limit: 1 << 20 };
    change(&mut question);
    let temporary = tempfile::NamedTempFile::new().unwrap();
    let mut file = File::from_std(temporary.reopen().unwrap());
    let result = Web::new(network()).fetch(&question, &mut file, &|_, _| {}).await;
    (result, std::fs::read(temporary.path()).unwrap())
}

fn with_etag(it: Reply) -> Reply {
    it.with("ETag", "\"1\"").with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
}

#[tokio::test]
async fn a_file_and_what_is_said_of_it() {
    let server = Server::start(|_, _| {
        with_etag(reply(200, "body"))
            .with("Content-Disposition", "attachment; filename=\"a/x.tar\"")
    })
    .await;
    let (result, bytes) = fetch(&server, "/f?sig=1", |_| {}).await;
    assert_eq!(bytes, b"body");
    let Fetched::File { head, digest, size } = result.unwrap() else { panic!("unchanged?") };
    assert_eq!((digest, size), (Digest::of(b"body"), 4));
    assert_eq!(head.modified, Some(784_111_777));
    assert_eq!(head.file_name.as_deref(), Some("x.tar"));
}

#[tokio::test]
async fn an_unchanged_file_is_not_sent_again() {
    let server = Server::start(|seen, _| match seen.header("if-none-match") {
        "\"1\"" => reply(304, ""),
        _ => reply(200, "body"),
    })
    .await;
    let known = Validators { etag: Some("\"1\"".to_owned()), last_modified: None };
    let url = Url::parse(&format!("http://{}/f", server.address)).unwrap();
    let question =
        Fetch { url: &url, headers: &[], known: Some(&known), checksum: None, limit: 10 };
    let mut file = File::from_std(tempfile::tempfile().unwrap());
    let web = Web::new(network());
    let result = web.fetch(&question, &mut file, &|_, _| {}).await;
    assert_eq!(result.unwrap(), Fetched::NotModified);
    assert_eq!(web.head(&question).await.unwrap(), None);
}

#[tokio::test]
async fn a_broken_transfer_goes_on_or_starts_again() {
    let body: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let sent = body.clone();
    let server = Server::start(move |seen, number| {
        let start = seen.header("range").strip_prefix("bytes=").map(|it| it.trim_end_matches('-'));
        match start.and_then(|it| it.parse::<usize>().ok()) {
            Some(start) if seen.header("if-range") == "\"1\"" => {
                let range = format!("bytes {start}-{}/{}", sent.len() - 1, sent.len());
                with_etag(reply(206, &sent[start..])).with("Content-Range", range)
            }
            _ if number == 0 && seen.target == "/etag" => {
                with_etag(reply(200, sent.clone())).cut(200_000)
            }
            _ if number == 2 => reply(200, sent.clone()).cut(200_000),
            _ => reply(200, sent.clone()),
        }
    })
    .await;
    let (result, bytes) = fetch(&server, "/etag", |_| {}).await;
    assert!(matches!(result, Ok(Fetched::File { .. })), "{result:?}");
    assert_eq!(bytes, body);
    let (result, bytes) = fetch(&server, "/plain", |_| {}).await;
    assert!(matches!(result, Ok(Fetched::File { .. })), "{result:?}");
    assert_eq!(bytes, body);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn what_is_refused() {
    let server = Server::start(|seen, _| match seen.target.as_str() {
        "/gone" => reply(404, "<html>"),
        _ => reply(200, "0123456789"),
    })
    .await;
    let kind = |result: Result<Fetched, RegistryError>| result.unwrap_err().kind();
    assert_eq!(kind(fetch(&server, "/gone", |_| {}).await.0), ErrorKind::NotFound);
    assert_eq!(kind(fetch(&server, "/large", |it| it.limit = 9).await.0), ErrorKind::TooLarge);
    let wrong = fetch(&server, "/other", |it| it.checksum = Some(Digest::of(b"x"))).await.0;
    assert_eq!(kind(wrong), ErrorKind::DigestMismatch);
}

#[tokio::test]
async fn tokens_stay_with_their_host() {
    let elsewhere = Server::start(|_, _| reply(200, "body")).await;
    let target = format!("http://{}/x", elsewhere.address);
    let server = Server::start(move |_, _| reply(302, "").with("Location", target.clone())).await;
    let headers = [("Authorization".to_owned(), "Bearer T".to_owned())];
    let url = Url::parse(&format!("http://{}/f", server.address)).unwrap();
    let question = Fetch { url: &url, headers: &headers, known: None, checksum: None, limit: 10 };
    let mut file = File::from_std(tempfile::tempfile().unwrap());
    let result = Web::new(network()).fetch(&question, &mut file, &|_, _| {}).await;
    assert!(result.is_ok());
    assert_eq!(server.seen()[0].header("authorization"), "Bearer T");
    assert_eq!(elsewhere.seen()[0].header("authorization"), "");
}

#[test]
fn names() {
    let name = |url: &str| file_name(None, None, &Url::parse(url).unwrap());
    assert_eq!(name("https://h/a/b.tar.gz?x=/y"), "b.tar.gz");
    assert_eq!(name("https://h/a%20b/"), "a b");
    assert_eq!(name("https://h/"), "download");
    assert_eq!(name("https://h"), "download");
    assert_eq!(name("https://h/%2e%2e%2f.."), "download");
    let url = Url::parse("https://h/x").unwrap();
    let head = WebHead { file_name: Some("y".to_owned()), ..WebHead::default() };
    assert_eq!(file_name(None, Some(&head), &url), "y");
    assert_eq!(file_name(Some("z"), Some(&head), &url), "z");
}

#[test]
fn names_that_servers_give() {
    let check = |header: &str, want: Option<&str>| {
        assert_eq!(disposition_name(header).as_deref(), want, "{header}");
    };
    check("attachment; filename=x.tar", Some("x.tar"));
    check("attachment; size=1; FileName = \"a \\\"b\\\".txt\"; x=y", Some("a \"b\".txt"));
    check("inline; filename=plain; filename*=UTF-8''na%C3%AFve.txt", Some("naïve.txt"));
    check("attachment; filename=\"../../etc/passwd\"", Some("passwd"));
    check("attachment; filename=\"dir/\"", None);
    check("attachment; filename=\"..\"", None);
    check("attachment", None);
    check("attachment; filename", None);
}
