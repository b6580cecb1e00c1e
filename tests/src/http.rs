//! As much of HTTP/1.1 as servers on the loopback address take in tests.

use std::fmt::Write as _;
use std::io::{BufRead, Read as _, Write};

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Reads one; none when the other side has closed, or says nothing that we understand.
    pub(crate) fn read(stream: &mut impl BufRead) -> Option<Self> {
        let line = line(stream)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut request = Self {
            method,
            path: decoded(path),
            query: pairs(query),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = self::line(stream)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            request.headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        request.read_body(stream)?;
        Some(request)
    }

    fn read_body(&mut self, stream: &mut impl BufRead) -> Option<()> {
        if self
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            loop {
                let size = u64::from_str_radix(line(stream)?.split(';').next()?.trim(), 16).ok()?;
                stream.by_ref().take(size).read_to_end(&mut self.body).ok()?;
                line(stream)?;
                if size == 0 {
                    return Some(());
                }
            }
        }
        let length =
            self.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        stream.by_ref().take(length).read_to_end(&mut self.body).ok()?;
        Some(())
    }

    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A value of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Response {
    /// With a status and nothing else.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a body.
    pub(crate) fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    /// Writes it; for `HEAD` without the body, and no more of the body than `limit`.
    pub(crate) fn write(
        &self,
        stream: &mut impl Write,
        head: bool,
        limit: usize,
    ) -> std::io::Result<()> {
        let mut text =
            format!("HTTP/1.1 {} Because\r\ncontent-length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            write!(text, "{name}: {value}\r\n").expect("writing to memory");
        }
        stream.write_all(format!("{text}\r\n").as_bytes())?;
        if !head {
            stream.write_all(&self.body[..self.body.len().min(limit)])?;
        }
        stream.flush()
    }
}

fn line(stream: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    let read = stream.read_line(&mut text).ok()?;
    (read > 0).then(|| text.trim_end_matches(['\r', '\n']).to_owned())
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex: Option<Vec<u8>> = (byte == b'%').then(|| rest.by_ref().take(2).collect());
        let value = hex.and_then(|hex| u8::from_str_radix(&String::from_utf8(hex).ok()?, 16).ok());
        bytes.push(value.unwrap_or(byte));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
