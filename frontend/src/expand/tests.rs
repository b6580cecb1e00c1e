//! Cases of the shell lexer, one line each.

use super::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "HOME" => "/home",
        "EMPTY" => "",
        "FILE" => "/a/b.tar.gz",
        "BLANKS" => " one  two ",
        "한국" => "말",
        _ => return None,
    };
    Some(value.to_owned())
}

#[track_caller]
fn check(word: &str, want: &str) {
    let got = match Expander::new('\\').expand(word, &lookup) {
        Ok(expansion) => expansion.text,
        Err(error) => format!("error: {}", error.reason),
    };
    assert_eq!(got, want, "{word}");
}

#[test]
fn quotes_and_escapes() {
    check("a'b c'd", "ab cd");
    check(r"a\'b\\c\", r"a'b\c");
    check(r#""a\tb\"\$\\""#, r#"a\tb"$\"#);
    check(r"'a\'b", r"a\b");
    check("\"it's\"", "it's");
    check("'a", "error: unexpected end of statement while looking for matching single-quote");
    check("\"a", "error: unexpected end of statement while looking for matching double-quote");
    check("한'국'\\어", "한국어");
}

#[test]
fn variables() {
    check("$HOME/x ${HOME}x $NONE.", "/home/x /homex .");
    check("$.$", "$.$");
    check("$1x$22y$@z$$", "xyz");
    check("$한국", "말");
    check("'$HOME' \"$HOME\" \\$HOME", "$HOME /home $HOME");
    check("${HOME", "error: syntax error: missing '}'");
    check("${}", "error: syntax error: bad substitution");
    check("${.}", "error: unsupported modifier (.) in substitution");
    check("${HOME:=x}", "error: unsupported modifier (:=) in substitution");
    check("${HOME:", "error: syntax error: missing '}'");
}

#[test]
fn conditions() {
    check("${NONE-w}|${EMPTY-w}|${HOME-w}", "w||/home");
    check("${NONE:-w}|${EMPTY:-w}|${HOME:-w}", "w|w|/home");
    check("${NONE+w}|${EMPTY+w}|${HOME+w}", "|w|w");
    check("${NONE:+w}|${EMPTY:+w}|${HOME:+w}", "||w");
    check("${NONE:-${OTHER:-a${HOME}b}}c", "a/homebc");
    check("${NONE:-\"a }\" '}'}", "a } }");
    check(r"${NONE:-a\}b}", "a}b");
    check("${HOME?no}${HOME:?no}${EMPTY?no}", "/home/home");
    check("${NONE?}", "error: NONE: is not allowed to be unset");
    check("${EMPTY:?}", "error: EMPTY: is not allowed to be empty");
    check("${NONE:?must be there}", "error: NONE: must be there");
    check("${1:-a}${@:-b}", "ab");
}

#[test]
fn patterns() {
    check("${FILE#*/}|${FILE##*/}", "a/b.tar.gz|b.tar.gz");
    check("${FILE%.*}|${FILE%%.*}", "/a/b.tar|/a/b");
    check("${FILE/a/c}|${FILE//a/c}", "/c/b.tar.gz|/c/b.tcr.gz");
    check(r"${FILE//\//:}", ":a:b.tar.gz");
    check("${FILE/a", "error: syntax error: missing '/' in ${}");
    check("${FILE/a/b", "error: syntax error: missing '}'");
    check("${HOME:#x}", "error: unsupported modifier (:#) in substitution");
    check(r"${FILE#\a}", r"error: invalid pattern (\a) in substitution: invalid escape '\a'");
}

#[test]
fn falls_into_words() {
    let words = |word: &str| Expander::new('\\').expand(word, &lookup).unwrap().words;
    assert_eq!(words("a${BLANKS}b"), ["a", "one", "two", "b"]);
    assert_eq!(words("a\"${BLANKS}\"b c"), ["a one  two b", "c"]);
    assert_eq!(words(r"a\ b '' c"), ["a b", "c"]);
}

/// As in BuildKit, though nobody can mean it: the text is whole, its words are not.
#[test]
fn a_form_with_a_word_forgets_the_beginning_of_its_word() {
    let words = |word: &str| Expander::new('\\').expand(word, &lookup).unwrap().words;
    assert_eq!(words("80${NONE:-81}"), ["81"]);
    assert_eq!(words("${NONE:-80}-${NONE:-90}/tcp x"), ["90/tcp", "x"]);
    assert_eq!(words("7\"8${NONE+x}9\"0 ${HOME#a}"), ["890", "/home"]);
    assert_eq!(words("8${HOME}0"), ["8/home0"]);
    check("80${NONE:-81}", "8081");
}

#[test]
fn reports_names() {
    let expansion = Expander::new('\\').expand("$HOME ${A:-$B} '$C'", &lookup).unwrap();
    assert_eq!(Vec::from_iter(expansion.matched), ["HOME"]);
    assert_eq!(Vec::from_iter(expansion.unmatched), ["A", "B"]);
}

#[test]
fn other_rules() {
    let display = Expander::for_display('\\');
    let text = |rules: Expander, word: &str| rules.expand(word, &lookup).unwrap().text;
    assert_eq!(
        text(display, "\"$HOME\" '$X' $X ${X} ${X:-$HOME} ${X%y} ${X//a/b}"),
        "\"/home\" '$X' $X ${X} ${X:-/home} ${X%y} ${X/a/b}",
    );
    assert_eq!(text(Expander::for_heredoc(), "'$HOME' \"\\$HOME\""), "'/home' \"$HOME\"");
    assert_eq!(text(Expander::new('`'), "C:\\a`$HOME$HOME"), "C:\\a$HOME/home");
}

#[test]
fn is_bounded() {
    check(&"${a:-".repeat(200_000), "error: substitutions are nested more than 100 deep");
    let big = "x".repeat(1 << 20);
    let grow = |_: &str| Some(big.clone());
    assert!(Expander::new('\\').expand(&"$a".repeat(100), &grow).is_err());
}

proptest::proptest! {
    /// Whatever is written, reading it does not panic, and the words lose no character of the text
    /// but blanks, unless a form with a word makes them.
    #[test]
    fn never_panics(word in "[ -~\\s한\u{feff}\u{0}${}:#%/*?'\"\\\\A]{0,60}") {
        for escape in ['\\', '`'] {
            for quotes in [Quotes::Remove, Quotes::Keep, Quotes::Ignore] {
                for (raw_escapes, unset) in [(false, Unset::Empty), (true, Unset::Keep)] {
                    let rules = Expander { escape, quotes, raw_escapes, unset };
                    let lookup = |name: &str| (name == "A").then(|| "a b*".to_owned());
                    if let Ok(expansion) = rules.expand(&word, &lookup)
                        && !word.contains('{')
                    {
                        let solid = |text: &str| text.replace(char::is_whitespace, "");
                        proptest::prop_assert_eq!(
                            solid(&expansion.words.concat()),
                            solid(&expansion.text)
                        );
                    }
                }
            }
        }
    }
}
