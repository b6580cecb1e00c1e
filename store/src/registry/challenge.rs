//! The `WWW-Authenticate` header: how a server wants to be convinced (RFC 9110, section 11;
//! distribution-spec, token authentication).

use crate::http::unquote;

/// Longest header that is looked at, in bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Most parameters of one challenge that are looked at.
const MAX_PARAMETERS: usize = 32;

/// What a server asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Challenge {
    /// User name and password.
    Basic,
    /// A token from elsewhere.
    Bearer {
        /// Address of the token server.
        realm: String,
        /// What the token server knows the registry by.
        service: Option<String>,
        /// What the token must permit.
        scope: Option<String>,
    },
}

/// All challenges of one header that are understood; others and broken ones are left out.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = &header[..header.floor_char_boundary(MAX_HEADER_BYTES)];
    let mut found = Vec::new();
    let mut scheme = None;
    let mut parameters: Vec<(String, String)> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let blank_free = after.trim_start_matches([' ', '\t']);
        if let Some(value) = blank_free.strip_prefix('=') {
            let (value, after) = value_of(value.trim_start_matches([' ', '\t']));
            if parameters.len() < MAX_PARAMETERS {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            found.extend(challenge(scheme.replace(word), &mut parameters));
            rest = after;
        }
    }
    found.extend(challenge(scheme, &mut parameters));
    found
}

fn challenge(scheme: Option<&str>, parameters: &mut Vec<(String, String)>) -> Option<Challenge> {
    let parameters = std::mem::take(parameters);
    let named =
        |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let scheme = scheme?;
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Challenge::Bearer {
            realm: named("realm")?,
            service: named("service").filter(|it| !it.is_empty()),
            scope: named("scope").filter(|it| !it.is_empty()),
        });
    }
    None
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|it: char| !(it.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(it)))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    unquote(quoted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn what_registries_write() {
        assert_eq!(
            parse(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:a/b:pull,push")
            )]
        );
        assert_eq!(parse(r#"Basic realm="Registry""#), [Challenge::Basic]);
        assert_eq!(
            parse(r#"BASIC realm="a, b", bearer Realm = https://h/t ,service="q\"x""#),
            [Challenge::Basic, bearer("https://h/t", Some("q\"x"), None)]
        );
        assert_eq!(parse("Negotiate abc, Basic"), [Challenge::Basic]);
        assert_eq!(parse("Bearer service=x"), []);
        assert_eq!(parse(""), []);
        assert_eq!(parse(r#"Bearer realm="unfinished"#), [bearer("unfinished", None, None)]);
    }

    proptest! {
        #[test]
        fn any_header_is_survived(text in "\\PC{0,60}") {
            parse(&text);
        }
    }
}
