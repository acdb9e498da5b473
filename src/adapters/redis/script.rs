//! Scripts and their calls. The client's own calls keep each key and argument in a list of its own; these are written
//! into one buffer, since a turn has some thirty of them.

use std::io::Write;

use redis::{Cmd, ErrorKind, RedisResult, RedisWrite, ServerErrorKind, ToRedisArgs, Value, cmd};
use serde::Serialize;

use super::link::Link;
use super::store::corrupt;
use crate::ports::StoreError;

/// A script that the server knows by its digest once it has seen it.
pub struct Script {
    code: &'static str,
    digest: String,
}

impl Script {
    pub fn new(code: &'static str) -> Self {
        let digest = redis::Script::new(code).get_hash().to_owned();
        Self { code, digest }
    }

    /// A call with so many keys. They are what is told it first; the arguments come after them.
    pub fn call(&self, keys: usize) -> Call<'_> {
        let mut command = Cmd::with_capacity(40, 4096);
        command.arg("EVALSHA").arg(&self.digest).arg(keys);
        Call {
            script: self,
            command,
        }
    }
}

/// A call of a script.
pub struct Call<'s> {
    script: &'s Script,
    command: Cmd,
}

impl Call<'_> {
    /// Adds a key or an argument, or several of them.
    pub fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.command.arg(argument);
        self
    }

    /// Adds an argument that is written as JSON. `what` names it where it cannot be.
    pub fn json(
        &mut self,
        what: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<&mut Self, StoreError> {
        self.json_after(&[], what, value)
    }

    /// The same, behind some other bytes.
    pub fn json_after(
        &mut self,
        before: &[u8],
        what: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<&mut Self, StoreError> {
        let mut argument = self.command.writer_for_next_arg();
        let written = argument.write_all(before).map_err(serde_json::Error::io);
        written
            .and_then(|()| serde_json::to_writer(argument, value))
            .map_err(|error| corrupt(what, &error))?;
        Ok(self)
    }

    /// The command by itself.
    pub fn command(&self) -> Cmd {
        self.command.clone()
    }

    /// Runs it. A server that does not know the script, as after a restart, is told it first.
    pub async fn run(&self, link: &Link) -> RedisResult<Value> {
        let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
        match link.query(&self.command).await {
            Err(error) if error.kind() == unknown => {
                let load = cmd("SCRIPT").arg("LOAD").arg(self.script.code).take();
                link.query::<Value>(&load).await?;
                link.query(&self.command).await
            }
            answer => answer,
        }
    }
}
