//! A server, a token in a file, and the keeper that uses them.

use std::path::PathBuf;

use e2e::{Lab, Vault as Server};
use orchestrator::config;
use orchestrator::engine::{Keeper, KeeperError};
use orchestrator::error::Error;
use orchestrator::keys::Vault;
use orchestrator::model::Sealed;
use protocol::RunId;
use serde_json::{Value, json};

pub const SERVICE: &str = "0123456789abcdef";

pub struct Bed {
    pub lab: Lab,
    pub server: Server,
    pub token_file: PathBuf,
}

pub fn run(name: &str) -> RunId {
    name.to_owned().try_into().unwrap()
}

/// Runs a test beside the threads that read what the server says.
pub fn play(test: impl AsyncFnOnce(&mut Bed)) {
    let lab = Lab::new();
    let server = Server::new(&lab);
    let token_file = lab.path("token");
    Server::write_token(&token_file, &server.token());
    let mut bed = Bed { lab, server, token_file };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(test(&mut bed));
}

pub fn config(value: &Value) -> config::Vault {
    let all = config::Config::parse(json!({"keys": {"vault": value}}).to_string().as_bytes()).unwrap();
    all.keys.vault.unwrap()
}

impl Bed {
    pub async fn open(&self) -> Vault {
        self.try_open(|_| ()).await.unwrap()
    }

    /// With a configuration that is not what it was.
    pub async fn try_open(&self, adjust: impl FnOnce(&mut Value)) -> Result<Vault, Error> {
        let mut value = self.server.config(&self.token_file);
        adjust(&mut value);
        Vault::open(&config(&value), SERVICE.into()).await
    }
}

/// A key of a run, as the engine has it made.
pub async fn make(vault: &Vault, of: &RunId) -> Result<Sealed, KeeperError> {
    let place = vault.place(of).await?.expect("a place");
    Keeper::make(vault, of, Some(&place)).await
}
