//! Dockerfile text in, warnings out.

use super::*;
use crate::parse::parse;

#[track_caller]
fn check_with(build_arg: Option<&str>, text: &str, want: &[&str]) -> Linter {
    let source = SourceText::new("Dockerfile", text.as_bytes()).expect("it is small");
    let dockerfile = parse(&source).expect("it is right");
    let options = Options::of_build(&dockerfile, build_arg).expect("they are right");
    let mut linter = Linter::new(options);
    check_syntax(&dockerfile, &mut linter);
    let got: Vec<String> = linter.clone().into_sorted().iter().map(Warning::summary).collect();
    assert_eq!(got, want, "{text}");
    linter
}

#[track_caller]
fn check(text: &str, want: &[&str]) {
    check_with(None, text, want);
}

#[test]
fn casing_and_stage_names() {
    check(
        "FROM scratch as Base\nenv A=1\nFROM base AS scratch2\nCOPY --from=Base / /\n",
        &[
            "StageNameCasing: Stage name 'Base' should be lowercase (line 1)",
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
            "ConsistentInstructionCasing: Command 'env' should match the case of the command majority (uppercase) (line 2)",
        ],
    );
    check(
        "arg X\nfrom a as b\nRun c\nEnv d=e\nCMD [\"x\"]\n",
        &[
            "ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase) (line 2)",
            "ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 3)",
            "ConsistentInstructionCasing: Command 'Env' should match the case of the command majority (uppercase) (line 4)",
        ],
    );
    check(
        "FROM busybox AS context\nFROM scratch AS scratch\nFROM c AS Context\n",
        &[
            "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 1)",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 2)",
            "StageNameCasing: Stage name 'Context' should be lowercase (line 3)",
            "DuplicateStageName: Duplicate stage name \"context\", stage names should be unique (line 3)",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 3)",
        ],
    );
}

#[test]
fn empty_continuation_is_reported_at_the_last_line() {
    check(
        "FROM busybox\nRUN echo a && \\\n\n    echo b\nRUN echo \\\n# c\n d\n",
        &["NoEmptyContinuation: Empty continuation line (line 4)"],
    );
}

#[test]
fn what_is_found_twice_is_told_twice() {
    let text = "StageNameCasing: Stage name 'B' should be lowercase (line 1)";
    let mut linter = check_with(None, "FROM a AS B\n", &[text]);
    let again = linter.warnings()[0].clone();
    linter.push(again.span, Finding { rule: again.rule, text: again.text });
    assert_eq!(linter.into_sorted().len(), 2);
}

#[test]
fn deprecated_instruction() {
    check(
        "FROM a\nMAINTAINER me\n",
        &[
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
        ],
    );
}

#[test]
fn rules_are_switched_off() {
    check("# check=skip=ConsistentInstructionCasing , MaintainerDeprecated\nFROM a\nrun b\n", &[]);
    check("# check=skip=all\nFROM a AS B\nrun c\n", &[]);
    check("FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER me\n", &[]);
    let casing = "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 3)";
    check_with(Some(""), "# check=skip=all\nFROM a\nrun c\n", &[casing]);
    check_with(Some("skip=all"), "FROM a\nrun c\n", &[]);
}

#[test]
fn experimental_rules_are_switched_on() {
    let text = "# a comment\nFROM x AS y\n# V is described\nARG V W\n# not\nARG A B\n";
    check(text, &[]);
    check_with(
        Some("experimental=all"),
        text,
        &[
            "InvalidDefinitionDescription: Comment for FROM should follow the format: `# y <description>` (line 2)",
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 6)",
        ],
    );
}

#[test]
fn warnings_can_be_errors() {
    let text = "# check=error=true\nFROM a AS B\nrun c\nenv d=e\nLABEL f=g\n";
    let source = SourceText::new("Dockerfile", text.as_bytes()).expect("it is small");
    let dockerfile = parse(&source).expect("it is right");
    let mut linter = Linter::new(Options::of_build(&dockerfile, None).expect("they are right"));
    assert_eq!(linter.failure(), None);
    check_syntax(&dockerfile, &mut linter);
    assert_eq!(
        linter.failure().as_deref(),
        Some("lint violation found for rules: ConsistentInstructionCasing, StageNameCasing")
    );
}

#[test]
fn options_are_read() {
    let options =
        Options::parse(" skip = A, B ; error = 1 ;experimental=all").expect("they are right");
    assert!(options.error && options.experimental == Selection::All);
    assert_eq!(options.skip, Selection::Some(["A", "B"].map(str::to_owned).into()));
    let error = |text: &str| Options::parse(text).map_err(|it| it.to_string()).unwrap_err();
    assert_eq!(error("skip"), "failed to parse check options: invalid check option \"skip\"");
    assert_eq!(
        error("skipp=A"),
        "failed to parse check options: invalid check option \"skipp\" (did you mean skip?)"
    );
    assert!(error("error=maybe").contains("it can be true or false"));
}

#[test]
fn secrets_by_name() {
    for name in ["API_KEY", "token", "GITHUB_TOKEN", "secret_MESSAGE", "A__password_B"] {
        assert!(is_secret_name(name), "{name}");
    }
    for name in ["KEYBOARD", "TOKEN_FILE", "PUBLIC_KEY", "GIT_TOKENS", "key_version", ""] {
        assert!(!is_secret_name(name), "{name}");
    }
}

#[test]
fn each_rule_explains_itself() {
    for rule in Rule::ALL {
        assert_eq!(Rule::by_name(&rule.name().to_lowercase()), Some(rule));
        let page = rule.explanation();
        assert!(page.starts_with(&format!("{}: ", rule.name())), "{page}");
        assert!(page.contains("\nGood:\n\n    "), "{page}");
        assert!(!rule.description().ends_with('.'));
    }
    let pages: BTreeSet<String> = Rule::ALL.map(Rule::explanation).into();
    assert_eq!(pages.len(), Rule::ALL.len());
}

#[test]
fn texts_of_rules_that_strike_in_lowering() {
    for (finding, want) in [
        (
            Finding::undefined_var("PAHT", Some("PATH")),
            "Usage of undefined variable '$PAHT' (did you mean $PATH?)",
        ),
        (
            Finding::legacy_key_value_format("ENV"),
            "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
        ),
        (
            Finding::secrets_used_in_arg_or_env("ARG", "A_KEY"),
            "Do not use ARG or ENV instructions for sensitive data (ARG \"A_KEY\")",
        ),
        (
            Finding::expose_invalid_format("127.0.0.1:90:90"),
            "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:90:90'",
        ),
    ] {
        assert_eq!(finding.text, want);
    }
}

#[test]
fn the_answer_of_a_check_names_each_line() {
    let text = "FROM a AS B\nENV x \\\n  1\n";
    let source = SourceText::new("Dockerfile", text.as_bytes()).expect("is small");
    let span = Span { first_line: 2, last_line: 3, ..Span::default() };
    let warning = Warning { rule: Rule::LegacyKeyValueFormat, text: "the text".to_owned(), span };
    let error = crate::diagnostic::Diagnostic::of_file("wrong").into();
    let answer = answer::Answer::new(&source, &[warning], Some(&error));
    let mut json = serde_json::to_value(&answer).expect("is JSON");
    json["sources"][0]["data"] = "…".into();
    expect_test::expect![[r#"
        {
          "warnings": [
            {
              "ruleName": "LegacyKeyValueFormat",
              "description": "names and values should be separated by `=`",
              "detail": "the text",
              "location": {
                "ranges": [
                  {
                    "start": {
                      "line": 2
                    },
                    "end": {
                      "line": 2
                    }
                  },
                  {
                    "start": {
                      "line": 3
                    },
                    "end": {
                      "line": 3
                    }
                  }
                ]
              }
            }
          ],
          "sources": [
            {
              "filename": "Dockerfile",
              "data": "…",
              "language": "Dockerfile"
            }
          ],
          "buildError": {
            "message": "wrong",
            "location": {}
          }
        }"#]]
    .assert_eq(&format!("{json:#}"));
}
