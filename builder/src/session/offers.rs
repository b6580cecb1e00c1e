//! What the user lends to a build: secrets and ssh agents, by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rbuild_solver::session::{SessionError, SessionErrorKind};

use super::KeyAgents;
use crate::cli::request::{Request, SecretFrom, SshFrom};
use crate::env::Env;

/// Secrets and agents.
#[derive(Debug, Default)]
pub struct Offers {
    secrets: BTreeMap<String, SecretFrom>,
    /// Environment variables that secrets may come from.
    variables: BTreeMap<String, String>,
    agents: BTreeMap<String, SshFrom>,
    /// Agents that were started for keys.
    key_agents: KeyAgents,
}

impl Offers {
    /// What the command line offers.
    pub fn new(request: &Request, env: &Env) -> Self {
        Self {
            secrets: request.secrets.clone(),
            variables: env.vars.clone(),
            agents: request.ssh.clone(),
            key_agents: KeyAgents::default(),
        }
    }

    /// Secrets with these names and values.
    #[cfg(test)]
    pub fn of_values<'a>(values: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut offers = Self::default();
        for (name, value) in values {
            offers.secrets.insert(name.to_owned(), SecretFrom::Env(name.to_owned()));
            offers.variables.insert(name.to_owned(), value.to_owned());
        }
        offers
    }

    /// The value of a secret; none if it was not offered.
    ///
    /// # Errors
    ///
    /// If its file cannot be read.
    pub fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SessionError> {
        match self.secrets.get(id) {
            None => Ok(None),
            Some(SecretFrom::Env(name)) => {
                Ok(self.variables.get(name).map(|it| it.clone().into_bytes()))
            }
            Some(SecretFrom::File(path)) => {
                std::fs::read(path).map(Some).map_err(|error| SessionError {
                    kind: SessionErrorKind::Host,
                    text: format!("cannot read secret {id} from {}: {error}", path.display()),
                    hint: None,
                })
            }
        }
    }

    /// The socket of an agent; none if it was not offered.
    ///
    /// # Errors
    ///
    /// If keys cannot be served.
    pub fn ssh_agent(&self, id: &str) -> Result<Option<PathBuf>, SessionError> {
        match self.agents.get(id) {
            None => Ok(None),
            Some(SshFrom::Agent(path)) => Ok(Some(path.clone())),
            Some(SshFrom::Keys(keys)) => self.key_agents.agent(id, keys).map(Some),
        }
    }
}
