//! `--call`: answers about a Dockerfile instead of a build.

use std::sync::Arc;

use rbuild_solver::solve::EventSink;

use super::plan::{self, Opened};
use super::print;
use crate::cli::request::{Method, Request};
use crate::report::{Failure, Kind};

/// Answers.
///
/// # Errors
///
/// If the Dockerfile is wrong, or the check finds something.
pub async fn run(request: &Request, opened: Opened, events: &EventSink) -> Result<(), Failure> {
    let gateway = opened.gateway(tokio::runtime::Handle::current(), events.clone());
    let (opened, method, json) = (Arc::new(opened), request.call.method, request.call.json);
    let answer = move || match method {
        Method::Check => check(&opened, &gateway, json),
        Method::Outline => {
            let outline = rbuild_frontend::lower::outline(
                &opened.dockerfile,
                &opened.source,
                &opened.options,
                &gateway,
            );
            let outline = outline.map_err(|error| plan::lower_failure(&error, &opened.source))?;
            if json { print_json(&outline) } else { print(&outline.to_text()) }
        }
        Method::Targets => {
            let targets = rbuild_frontend::call::targets(&opened.dockerfile, &opened.source);
            if json { print_json(&targets) } else { print(&targets.to_text()) }
        }
        Method::Build | Method::Describe => {
            if json {
                print_json(&rbuild_frontend::call::describe())
            } else {
                print(&rbuild_frontend::call::describe_text())
            }
        }
    };
    let answered = tokio::task::spawn_blocking(answer).await;
    answered.unwrap_or_else(|error| {
        Err(Failure::new(Kind::Bug, format!("the frontend failed: {error}")))
    })
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("an answer has only string keys");
    print(&format!("{text}\n"))
}

/// Lowers for the warnings alone.
fn check(
    opened: &Opened,
    gateway: &crate::gateway::LocalGateway,
    json: bool,
) -> Result<(), Failure> {
    let planned = plan::lower(opened, gateway)?;
    if json {
        let warnings: Vec<serde_json::Value> = planned
            .warnings
            .iter()
            .map(|it| {
                serde_json::json!({
                    "ruleName": it.rule.name(), "description": it.rule.description(), "detail": it.text,
                    "location": {"line": it.span.first_line, "lastLine": it.span.last_line},
                })
            })
            .collect();
        print_json(&serde_json::json!({ "warnings": warnings }))?;
    } else if planned.warnings.is_empty() {
        print("Check complete, no warnings found.\n")?;
    } else {
        let found = match planned.warnings.len() {
            1 => "one warning has".to_owned(),
            many => format!("{many} warnings have"),
        };
        let mut text = format!("Check complete, {found} been found!\n\n");
        for warning in &planned.warnings {
            text.push_str(&warning.render(&opened.source));
            text.push('\n');
        }
        print(&text)?;
    }
    if planned.warnings.is_empty() {
        Ok(())
    } else {
        let found = match planned.warnings.len() {
            1 => "one warning".to_owned(),
            many => format!("{many} warnings"),
        };
        Err(Failure::new(Kind::User, format!("the check found {found}")))
    }
}
