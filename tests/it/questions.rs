//! `--call`, `--check`, `explain-rule`: what is said about a Dockerfile without building it.

use rbuild_tests::space::TestSpace;

#[test]
fn what_a_dockerfile_offers_is_told() {
    let space = TestSpace::new();
    space.write(
        "Dockerfile",
        "# app is built\nFROM scratch AS app\n# V is said\nARG V=1\nMAINTAINER me\nFROM scratch AS Other\nLABEL a b\n",
    );
    let ask = |call: &str| space.run(&["build", "--call", call, "."]);
    let checked = ask("check").ended(1).text();
    assert!(
        checked.starts_with("Check complete, 3 warnings have been found!\n\nWARNING: "),
        "{checked}"
    );
    assert!(checked.contains("\nDockerfile:5\n--------------------\n"), "{checked}");
    assert_eq!(space.run(&["build", "--check", "."]).ended(1).text(), checked);
    ask("lint,ignorestatus=true").ended(0);
    let of_one = space.run(&["build", "--check", "--target", "app", "."]).ended(1).text();
    assert!(!of_one.contains("LegacyKeyValueFormat"), "{of_one}");
    let found: serde_json::Value =
        serde_json::from_str(&ask("check,format=json").ended(1).text()).unwrap();
    assert_eq!(found["warnings"][0]["ruleName"], "MaintainerDeprecated");
    assert!(!found.to_string().contains("https://"), "{found:#}");
    let targets = "TARGET          DESCRIPTION\napp             is built\nother (default) \n";
    assert_eq!(ask("targets").success().text(), targets);
    let outline = space.run(&["build", "--call=outline", "--target=app", "."]).success().text();
    let table = "TARGET:      app\nDESCRIPTION: is built\n\nBUILD ARG   VALUE   DESCRIPTION\nV           1       is said\n\n";
    assert_eq!(outline, table);
    for call in ["describe", "subrequests.describe"] {
        assert!(
            ask(call).success().text().starts_with("NAME                 VERSION DESCRIPTION\n")
        );
    }
    for call in ["outline", "targets", "describe"] {
        let text = ask(&format!("{call},format=json")).success().text();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    }
    space.build(&[]).success().says("LegacyKeyValueFormat: ").says("(line 7)");
    space.write("Wrong", "# check=error=true\nFROM scratch AS A\n");
    space.build(&["-f", "Wrong"]).ended(1).says("lint violation found for rules: StageNameCasing");
    let page = space.run(&["explain-rule", "StageNameCasing"]).success().text();
    assert!(page.starts_with("StageNameCasing: ") && !page.contains("http"), "{page}");
}
