//! Dockerfile text in, printed tree or errors out.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::dump;

#[track_caller]
fn check(text: &str, want: &Expect) {
    check_bytes(text.as_bytes(), want);
}

#[track_caller]
fn check_bytes(bytes: &[u8], want: &Expect) {
    let source = SourceText::new("Dockerfile", bytes).expect("it is small");
    want.assert_eq(&match parse(&source) {
        Ok(dockerfile) => dump::dump(&dockerfile),
        Err(errors) => errors.render(&source),
    });
}

/// The messages alone.
#[track_caller]
fn refuses(text: &str, want: &str) {
    let source = SourceText::new("Dockerfile", text.as_bytes()).expect("it is small");
    let got = match parse(&source) {
        Ok(dockerfile) => dump::dump(&dockerfile),
        Err(errors) => errors.to_string(),
    };
    assert_eq!(got, want, "{text}");
}

#[test]
fn all_instructions() {
    check(
        r#"
# syntax=docker/dockerfile:1
ARG VERSION=1 NAME
FROM --platform=$BUILDPLATFORM golang:${VERSION} AS Build
MAINTAINER me  and you
ENV a=1 b="x y" c=z\ z
ENV old  the value
LABEL "k e y"=v
EXPOSE 90/udp 80
VOLUME /a /b
VOLUME ["/c d", " /e "]
USER nobody:nogroup
WORKDIR /with blanks
CMD ["a", "b"]
ENTRYPOINT exec $x
HEALTHCHECK --interval=5s --timeout=1m --retries=3 CMD curl x
HEALTHCHECK NONE
STOPSIGNAL SIGTERM
SHELL ["/bin/bash", "-c"]
ONBUILD RUN echo
RUN --mount=type=cache,target=/c --network=none --security=insecure --device=a.b/c,required make
COPY --from=build --chown=1:2 --chmod=u+x --link --parents --exclude=*.o --exclude=x a b/
ADD --keep-git-dir=true --checksum=sha256:x --unpack=false http://x/y /
"#
        .trim_start(),
        &expect![[r#"
            (directives syntax="docker/dockerfile:1" escape=\)
            (arg 2 VERSION="1" "NAME")
            (from 3 "golang:${VERSION}" platform="$BUILDPLATFORM" as="build")
            (maintainer 4 "me  and you")
            (env 5 a="1" b="\"x y\"" c="z\\ z")
            (env 6 old="the value" legacy)
            (label 7 "k e y"="v")
            (expose 8 "80" "90/udp")
            (volume 9 "/a" "/b")
            (volume 10 "/c d" "/e")
            (user 11 "nobody:nogroup")
            (workdir 12 "/with blanks")
            (cmd 13 (exec "a" "b"))
            (entrypoint 14 shell="exec $x")
            (healthcheck 15 interval=5s timeout=60s retries=3 shell="curl x")
            (healthcheck 16 none=true)
            (stopsignal 17 "SIGTERM")
            (shell 18 "/bin/bash" "-c")
            (onbuild 19 "RUN echo")
            (run 20 mount="type=cache,target=/c" network=none security=insecure device="a.b/c" required shell="make")
            (copy 21 from="build" parents chown="1:2" chmod="u+x" link exclude="*.o" exclude="x" "a" to="b/")
            (add 22 checksum="sha256:x" keep-git-dir=true unpack=false "http://x/y" to="/")
        "#]],
    );
}

#[test]
fn heredocs() {
    check(
        "FROM a\nRUN <<EOF\n  one $x\n\ttwo\nEOF\nRUN cat <<-'A' >/a && cat 3<<B >/b\n\ttab\n\tA\nb\nB\n\
         COPY --chmod=1 <<one <<-\"two\" three /d/\n1 $y\none\n\t2\n\ttwo\n\
         RUN python3 <<PY\nFROM x\nPY\n\
         ONBUILD RUN <<EOF\nhi\nEOF\n\
         RUN cat <<< word\nRUN [\"cat\", \"<<EOF\"]\nRUN echo \"<<EOF\"\nRUN echo it's <<EOF\nCMD cat <<EOF\n",
        &expect![[r#"
            (directives escape=\)
            (from 1 "a")
            (run 2-5 shell="<<EOF" (heredoc "EOF" expand "  one $x\n\ttwo\n"))
            (run 6-10 shell="cat <<-'A' >/a && cat 3<<B >/b" (heredoc "A" chomp "\ttab\n") (heredoc "B" expand fd=3 "b\n"))
            (copy 11-15 chmod="1" "three" (inline "one" expand "1 $y\n") (inline "two" "2\n") to="/d/")
            (run 16-18 shell="python3 <<PY" (heredoc "PY" expand "FROM x\n"))
            (onbuild 19-21 "RUN <<EOF\nhi\nEOF")
            (run 22 shell="cat <<< word")
            (run 23 (exec "cat" "<<EOF"))
            (run 24 shell="echo \"<<EOF\"")
            (run 25 shell="echo it's <<EOF")
            (cmd 26 shell="cat <<EOF")
        "#]],
    );
}

#[test]
fn line_ends_and_byte_order_mark() {
    check_bytes(
        b"\xef\xbb\xbfFROM a\r\nRUN x \\\r\n  y\r\nCOPY <<E /e\r\n1\r\nE\r\nENV b=\"c\"\r\n",
        &expect![[r#"
            (directives escape=\)
            (from 1 "a")
            (run 2-3 shell="x   y")
            (copy 4-6 (inline "E" expand "1\r\n") to="/e")
            (env 7 b="\"c\"")
        "#]],
    );
}

#[test]
fn continuations() {
    check(
        "FROM a\nRUN one \\\n# comment\n\n   # other\n  two \\  \n\\\n\n three \\\n\nrUn a\\\\\nE\\\nNV x=\\\n1\nRUN at \\\n# the end \\",
        &expect![[r#"
            (directives escape=\)
            (from 1 "a")
            (run 2-11 shell="one   two  three rUn a\\\\")
            (env 12-14 x="1")
            (run 15-16 shell="at")
        "#]],
    );
}

#[test]
fn other_escape_character() {
    check(
        "# escape=`\nFROM a\nRUN one `\n  two\nCOPY c:\\x d:\\\nENV a=b` c\nRUN <<EOF\n\\x\nEOF\n",
        &expect![[r#"
            (directives escape=`)
            (from 2 "a")
            (run 3-4 shell="one   two")
            (copy 5 "c:\\x" to="d:\\")
            (env 6 a="b` c")
            (run 7-9 shell="<<EOF" (heredoc "EOF" expand "\\x\n"))
        "#]],
    );
}

#[test]
fn json_form_falls_back() {
    check(
        "FROM a\nCMD [ \"a\", 'b' ]\nCMD []\nCMD\nRUN [\"a\"\nRUN [ -e x ]\nCOPY [\"a b\", \"c\"]\nCOPY [a b]\nRUN\nSHELL [ \"x\" ] \n",
        &expect![[r#"
            (directives escape=\)
            (from 1 "a")
            (cmd 2 shell="[ \"a\", 'b' ]")
            (cmd 3 (exec))
            (cmd 4 shell="")
            (run 5 shell="[\"a\"")
            (run 6 shell="[ -e x ]")
            (copy 7 "a b" to="c")
            (copy 8 "[a" to="b]")
            (run 9 shell="")
            (shell 10 "x")
        "#]],
    );
}

#[test]
fn flags_anywhere_before_arguments() {
    check(
        "FROM a\nCOPY --link --from=\"b c\" -- --x y\nCOPY --link=False --parents=TRUE a --chown=1 /x\nARG --x=1 a\nSTOPSIGNAL --x 9\nRUN --mount=a=b\\ c --mount=d e --network=host\nHEALTHCHECK --bad NONE\n",
        &expect![[r#"
            (directives escape=\)
            (from 1 "a")
            (copy 2 from="b c" link "--x" to="y")
            (copy 3 parents "a" "--chown=1" to="/x")
            (arg 4 "a")
            (stopsignal 5 "9")
            (run 6 mount="a=b c" mount="d" shell="e --network=host")
            (healthcheck 7 none=true)
        "#]],
    );
}

#[test]
fn comments_describe() {
    let source =
        b"# a note\n#\n# base the base\nFROM x AS base\n\n# V version\n  # V indented\nARG V=1 W\n";
    let source = SourceText::new("Dockerfile", source).expect("it is small");
    let dockerfile = parse(&source).expect("it is right");
    let Instruction::From(from) = &dockerfile.instructions[0] else { panic!("{dockerfile:?}") };
    assert_eq!(from.doc.as_deref(), Some("the base"));
    assert_eq!(from.header.comments, ["base the base"]);
    let Instruction::Arg(arg) = &dockerfile.instructions[1] else { panic!("{dockerfile:?}") };
    assert_eq!(arg.declarations[0].doc.as_deref(), Some("version"));
    assert_eq!(arg.header.comments, ["V version", "# V indented"]);
}

#[test]
fn shows_place_line_and_caret() {
    check(
        "FROM a\nRUNN make\nrunn make\nCOPY --form=b \\\n  c d\nENV a=1 \\\n    b\nFROM a b\nRUN --mount=from=$x \\\n   --network=hosts y\n",
        &expect![[r#"
            error: unknown instruction: RUNN (did you mean RUN?)
             --> Dockerfile:2:1
              |
            2 | RUNN make
              | ^^^^

            error: unknown instruction: runn (did you mean run?)
             --> Dockerfile:3:1
              |
            3 | runn make
              | ^^^^

            error: unknown flag: --form (did you mean from?)
             --> Dockerfile:4:6
              |
            4 | COPY --form=b \
              |      ^^^^^^^^
              = help: it knows --chown, --from, --chmod, --link, --exclude, --parents

            error: Syntax error - can't find = in "b". Must be of the form: name=value
             --> Dockerfile:7:5
              |
            7 |     b
              |     ^
              = help: quote a value that has blanks in it

            error: FROM requires either one or three arguments
             --> Dockerfile:8:1
              |
            8 | FROM a b
              | ^^^^^^^^
              = help: write `FROM image` or `FROM image AS name`

            error: 'from' doesn't support variable expansion, define alias stage instead
             --> Dockerfile:9:13
              |
            9 | RUN --mount=from=$x \
              |             ^^^^^^^
        "#]],
    );
}

#[test]
fn refusals() {
    refuses("", "the Dockerfile cannot be empty");
    refuses("# x\n\n", "file with no instructions");
    refuses("ARG a\n", "dockerfile contains no stages to build");
    refuses("RUN a\nENV b=c\nFROM d\n", "line 1: no build stage in current context");
    refuses("FROM\n", "line 1: FROM requires either one or three arguments");
    refuses(
        "FROM a AS 1b\n",
        "line 1: invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
    );
    let check =
        |line: &str, want: &str| refuses(&format!("FROM a\n{line}\n"), &format!("line 2: {want}"));
    check("\\", "unknown instruction: ");
    check(
        "COPY a",
        "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
    );
    check("COPY a <<E\nE", "COPY cannot accept a heredoc as a destination");
    check("COPY --from a b", "missing a value on flag: --from");
    check("COPY --link= a b", "missing a value on flag: --link");
    check("COPY --link=x a b", "expecting boolean value for flag --link, not: x");
    check("COPY --from=a --from=b c d", "duplicate flag specified: --from");
    check("ADD --chwon=a c d", "unknown flag: --chwon (did you mean chown?)");
    check("ENV", "ENV requires at least one argument");
    check("ENV a", "ENV must have two arguments");
    check("ENV =a", "ENV names can not be blank");
    check("ENV a=1 b", "Syntax error - can't find = in \"b\". Must be of the form: name=value");
    check("ARG =a", "ARG names can not be blank");
    check("EXPOSE", "EXPOSE requires at least one argument");
    check("VOLUME [ ]", "VOLUME requires at least one argument");
    check("VOLUME [\"\"]", "VOLUME specified can not be an empty string");
    check("WORKDIR", "WORKDIR requires exactly one argument");
    check(
        "CMD [\"a\", 1]",
        "when using JSON array syntax, arrays must be comprised of strings only",
    );
    check("SHELL sh -c", "SHELL requires the arguments to be in JSON form");
    check("SHELL []", "SHELL requires at least one argument");
    check("ONBUILD", "ONBUILD requires at least one argument");
    check("ONBUILD onbuild RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    check("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger");
    check("ONBUILD ENV x", "ENV must have two arguments");
    let not_texts = "when using JSON array syntax, arrays must be comprised of strings only";
    check("ONBUILD HEALTHCHECK CMD [1]", not_texts);
    check("RUN --network=x y", "invalid network mode \"x\"");
    check("RUN --security= y", "security \"\" is not valid");
    check("RUN --mount= y", "failed to parse csv mounts: there are no fields");
    check("RUN <<A <<B\nA\nb", "unterminated heredoc");
    check("HEALTHCHECK", "HEALTHCHECK requires at least one argument");
    check("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments");
    check("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD");
    check("HEALTHCHECK TCP 1", "Unknown type \"TCP\" in HEALTHCHECK (try CMD)");
    check("HEALTHCHECK --timeout=1 CMD x", "time: missing unit in duration \"1\"");
    check("HEALTHCHECK --timeout=1us CMD x", "Interval \"timeout\" cannot be less than 1ms");
    check("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)");
}

#[test]
fn long_lines() {
    let fits = format!("FROM a\nENV a={}\n", "x".repeat(65_535 - 6));
    let source = SourceText::new("Dockerfile", fits.as_bytes()).expect("it is small");
    assert!(parse(&source).is_ok());
    let longer = fits.replace("a=", "ab=");
    refuses(&longer, "line 2: dockerfile line greater than max allowed size of 65535");
}

#[test]
fn bytes_that_are_not_text() {
    check_bytes(
        b"FROM a\n# \xff\nENV a=\xff\nCOPY <<E /e\n\xff\nE\n",
        &expect![[r#"
        (directives escape=\)
        (from 1 "a")
        (env 3 a="�")
        (copy 4-6 (inline "E" expand "�\n") to="/e")
    "#]],
    );
    check_bytes(
        b"FROM a\nRUN echo \\\n  \xe9 x\n",
        &expect![[r#"
        error: RUN holds a byte that is not UTF-8
         --> Dockerfile:3:3
          |
        3 |   � x
          |   ^
          = help: convert the file to UTF-8, or write the byte with printf '\ooo'
    "#]],
    );
}

#[test]
fn triggers() {
    let span = Span { start: 5, end: 9, first_line: 2, last_line: 2 };
    let trigger = |text: &str| match parse_trigger(text, span) {
        Ok(it) => {
            assert_eq!(it.header().span, span);
            dump::instruction(&it)
        }
        Err(errors) => errors.to_string(),
    };
    assert_eq!(trigger("COPY . /x"), "(copy 2 \".\" to=\"/x\")\n");
    assert_eq!(
        trigger("RUN <<EOF\nhi\nEOF"),
        "(run 2 shell=\"<<EOF\" (heredoc \"EOF\" expand \"hi\\n\"))\n"
    );
    assert_eq!(trigger("RUN a\nRUN b"), "line 2: onbuild trigger should be a single expression");
    assert_eq!(trigger(""), "line 2: onbuild trigger should be a single expression");
    assert_eq!(trigger("FROM x"), "line 2: FROM isn't allowed as an ONBUILD trigger");
    assert_eq!(trigger("WORKDIR"), "line 2: WORKDIR requires exactly one argument");
}

#[test]
fn too_many_errors_are_cut() {
    let source = SourceText::new("Dockerfile", "x\n".repeat(100).as_bytes()).expect("it is small");
    assert_eq!(parse(&source).map_err(|errors| errors.list.len()), Err(MAX_ERRORS));
}

/// Pieces that Dockerfiles are made of, and that break parsers.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let texts: Vec<&[u8]> = vec![
        b"FROM a",
        b"\n",
        b"\r\n",
        b"RUN ",
        b"COPY ",
        b"ADD ",
        b"ENV ",
        b"ONBUILD ",
        b"HEALTHCHECK ",
        b"ARG ",
        b"LABEL ",
        b"VOLUME ",
        b"SHELL ",
        b"CMD ",
        b"<<",
        b"<<-",
        b"EOF",
        b"'",
        b"\"",
        b"\\",
        b"`",
        b"#",
        b"# escape=`\n",
        b"--",
        b"--from=",
        b"--mount=",
        b"=",
        b"$",
        b"${",
        b"}",
        b"[",
        b"]",
        b",",
        b" ",
        b"\t",
        b"\xff",
        b"\xc3",
        "\u{a0}".as_bytes(),
        "\u{3000}é".as_bytes(),
        b"\0",
        b"x",
        b"NONE",
        b"\xef\xbb\xbf",
    ];
    prop_oneof![
        9 => prop::sample::select(texts).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ]
}

proptest! {
    /// Whatever is in the file: no panic, each span lies in the text, and what is shown can be shown.
    #[test]
    fn never_panics(pieces in prop::collection::vec(piece(), 0..60)) {
        let source = SourceText::new("Dockerfile", &pieces.concat()).expect("it is small");
        match parse(&source) {
            Ok(dockerfile) => {
                dump::dump(&dockerfile);
                for instruction in &dockerfile.instructions {
                    let header = instruction.header();
                    let written = source.text().get(header.span.start..header.span.end);
                    prop_assert!(written.is_some(), "{header:?}");
                    prop_assert!(header.span.first_line <= header.span.last_line);
                    prop_assert!(header.span.last_line <= source.n_lines());
                    prop_assert!(source.raw(header.span.start..header.span.end).len() <= source.text().len());
                }
            }
            Err(errors) => {
                prop_assert!(!errors.list.is_empty());
                errors.render(&source);
            }
        }
    }

    /// Nor on any trigger of a base image.
    #[test]
    fn triggers_never_panic(pieces in prop::collection::vec(piece(), 0..20)) {
        let text = String::from_utf8_lossy(&pieces.concat()).into_owned();
        drop(parse_trigger(&text, Span::default()));
    }
}
