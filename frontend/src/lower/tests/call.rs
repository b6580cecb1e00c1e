//! What `--call` answers.

use expect_test::expect;

use super::*;
use crate::call;

const TEXT: &str = "ARG inherited=box\nARG unused=x\n# sfx is a suffix\nARG sfx=\"usy${inherited}\"\n\
    FROM b${sfx} AS first\n# BAR is a number\nARG BAR=456\n\
    RUN --mount=type=secret,id=s${BAR} --mount=type=ssh,required true\n\
    FROM alpine AS second\nARG BAZ\nRUN --mount=type=secret,id=not true\n\
    # target defines it\nFROM scratch AS target\nARG sfx\nCOPY --from=first /a /\nFROM second\n";

#[test]
fn outline() {
    let case = case(TEXT).arg("BAR", "678").with(|it| it.target = Some("target".to_owned()));
    let source = SourceText::new("Dockerfile", TEXT.as_bytes()).expect("is not large");
    let dockerfile = parse::parse(&source).expect("is right");
    let outline =
        super::super::outline(&dockerfile, &source, &case.options, &case.fake).expect("is right");
    expect![[r#"
        TARGET:      target
        DESCRIPTION: defines it

        BUILD ARG   VALUE    DESCRIPTION
        inherited   box      
        sfx         usybox   is a suffix
        BAR         678      is a number

        SECRET   REQUIRED
        s678     

        SSH       REQUIRED
        default   true

    "#]]
    .assert_eq(&outline.to_text());
    let mut json = serde_json::to_value(&outline).expect("is JSON");
    json["sources"] = serde_json::Value::Null;
    expect![[r#"{"name":"target","description":"defines it","args":[{"name":"inherited","value":"box","location":{"ranges":[{"start":{"line":1},"end":{"line":1}}]}},{"name":"sfx","description":"is a suffix","value":"usybox","location":{"ranges":[{"start":{"line":4},"end":{"line":4}}]}},{"name":"BAR","description":"is a number","value":"678","location":{"ranges":[{"start":{"line":7},"end":{"line":7}}]}}],"secrets":[{"name":"s678","location":{"ranges":[{"start":{"line":8},"end":{"line":8}}]}}],"ssh":[{"name":"default","required":true,"location":{"ranges":[{"start":{"line":8},"end":{"line":8}}]}}],"sources":null}"#]].assert_eq(&json.to_string());
}

#[test]
fn targets() {
    let source = SourceText::new("Dockerfile", TEXT.as_bytes()).expect("is not large");
    let dockerfile = parse::parse(&source).expect("is right");
    expect![[r#"
        TARGET    DESCRIPTION
        first     
        second    
        target    defines it
        (default) 
    "#]]
    .assert_eq(&call::targets(&dockerfile, &source).to_text());
}

#[test]
fn methods() {
    expect![[r#"
        NAME                 VERSION DESCRIPTION
        outline              1.0.0   List all parameters current build target supports
        targets              1.0.0   List all targets current build supports
        subrequests.describe 1.0.0   List available subrequest types
    "#]]
    .assert_eq(&call::describe_text());
    assert_eq!(call::describe()[0]["name"], "frontend.outline");
}
