//! `--call`: answers about a Dockerfile instead of a build.

use std::sync::Arc;

use rbuild_frontend::lint::answer::{self, Answer};
use rbuild_solver::solve::EventSink;

use super::plan::{self, Opened};
use super::{print, print_json};
use crate::cli::request::{Call, Method, Request};
use crate::gateway::LocalGateway;
use crate::report::{Failure, Kind};

/// Answers.
///
/// # Errors
///
/// If the Dockerfile is wrong, or the check finds something.
pub async fn run(request: &Request, opened: Opened, events: &EventSink) -> Result<(), Failure> {
    let gateway = opened.gateway(tokio::runtime::Handle::current(), events.clone());
    let (opened, call) = (Arc::new(opened), request.call);
    let answer = move || match call.method {
        Method::Check => check(&opened, &gateway, call),
        Method::Outline => {
            let outline = rbuild_frontend::lower::outline(
                &opened.dockerfile,
                &opened.source,
                &opened.options,
                &gateway,
            );
            let outline = outline.map_err(|error| plan::lower_failure(&error, &opened.source))?;
            if call.json { print_json(&outline) } else { print(&outline.to_text()) }
        }
        Method::Targets => {
            let targets = rbuild_frontend::call::targets(&opened.dockerfile, &opened.source);
            if call.json { print_json(&targets) } else { print(&targets.to_text()) }
        }
        Method::Build | Method::Describe => {
            if call.json {
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

/// Lowers for the warnings alone.
fn check(opened: &Opened, gateway: &LocalGateway, call: Call) -> Result<(), Failure> {
    let source = &opened.source;
    let (warnings, error) = match plan::lower_with(opened, gateway, plan::linter(opened)?) {
        Ok(planned) => (planned.warnings, None),
        Err(failed) => (failed.warnings, Some(failed.error)),
    };
    let wrong = error.as_ref().map(|it| &it.diagnostics);
    if call.json {
        print_json(&Answer::new(source, &warnings, wrong))?;
    } else if wrong.is_none() || !warnings.is_empty() {
        print(&answer::to_text(&warnings, source))?;
    }
    match error {
        Some(error) => Err(plan::lower_failure(&error, source)),
        None if warnings.is_empty() || call.ignore_status => Ok(()),
        None => {
            let counted = answer::counted(warnings.len());
            Err(Failure::new(Kind::User, format!("{counted} been found")))
        }
    }
}
