//! The world as the frontend sees it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_frontend::gateway::{
    Gateway, GatewayError, GatewayErrorKind, ImageRequest, ResolvedImage,
};
use rbuild_solver::llb::op::SourceOp;
use rbuild_solver::solve::EventSink;

use crate::report::Kind;
use crate::session::images::Images;
use crate::session::remote::Remotes;

/// Largest file of a context that the frontend reads, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Answers from registries and local directories. Must not be called on a thread of the runtime.
#[derive(Debug)]
pub struct LocalGateway {
    /// Images.
    pub images: Arc<Images>,
    /// The runtime that registries are asked on.
    pub runtime: tokio::runtime::Handle,
    /// Git repositories and web servers.
    pub remotes: Arc<Remotes>,
    /// Where progress goes.
    pub events: EventSink,
    /// Directories by name of the local source.
    pub directories: BTreeMap<String, Option<PathBuf>>,
    /// `<Dockerfile>.dockerignore`, by its name.
    pub own_ignore: Option<(String, Vec<u8>)>,
}

impl Gateway for LocalGateway {
    fn resolve_images(
        &self,
        requests: &[ImageRequest],
    ) -> Vec<Result<ResolvedImage, GatewayError>> {
        let all = requests.iter().map(async |request| {
            let task = self.events.task(&request.name);
            let resolved = self
                .images
                .resolve(&request.reference, &request.platform)
                .await
                .map_err(GatewayError::from);
            task.end(resolved)
        });
        self.runtime.block_on(futures_util::future::join_all(all))
    }

    fn read_context_file(
        &self,
        context: &str,
        path: &str,
    ) -> Result<Option<Vec<u8>>, GatewayError> {
        if context == "dockerfile" {
            return Ok(self
                .own_ignore
                .as_ref()
                .filter(|(name, _)| name == path)
                .map(|(_, bytes)| bytes.clone()));
        }
        let Some(Some(directory)) = self.directories.get(context) else { return Ok(None) };
        let file = directory.join(path);
        let mut bytes = Vec::new();
        let read =
            std::fs::File::open(&file).and_then(|it| it.take(MAX_FILE).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(GatewayError {
                kind: GatewayErrorKind::Host,
                text: format!("cannot read {}: {error}", file.display()),
                hint: None,
            }),
        }
    }

    fn source_time(&self, source: &SourceOp) -> Result<Option<i64>, GatewayError> {
        let context = self.directories.get("context").cloned().flatten();
        let time = self.remotes.time(source, context.as_deref());
        self.runtime.block_on(time).map_err(|error| GatewayError {
            kind: match error.kind {
                Kind::Host => GatewayErrorKind::Host,
                Kind::User | Kind::Usage | Kind::Remote | Kind::Bug | Kind::Interrupted => {
                    GatewayErrorKind::Remote
                }
            },
            text: error.text,
            hint: error.hint,
        })
    }
}
