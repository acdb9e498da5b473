//! Scripts and their calls. The client's own calls keep each key and argument in a list of its own; these are written
//! into one buffer, since a turn has some thirty of them.

use redis::{Arg, Cmd, ErrorKind, RedisResult, ServerErrorKind, ToRedisArgs, Value, cmd};

use super::link::Link;

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

    /// A call that has no keys and arguments yet.
    pub fn call(&self) -> Call<'_> {
        Call {
            script: self,
            keys: Vec::with_capacity(16),
            arguments: Cmd::with_capacity(32, 4096),
        }
    }
}

/// A call of a script.
pub struct Call<'s> {
    script: &'s Script,
    keys: Vec<String>,
    arguments: Cmd,
}

impl Call<'_> {
    /// Adds a key.
    pub fn key(&mut self, key: String) -> &mut Self {
        self.keys.push(key);
        self
    }

    /// Adds keys.
    pub fn keys(&mut self, keys: impl IntoIterator<Item = String>) -> &mut Self {
        self.keys.extend(keys);
        self
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.arguments.arg(argument);
        self
    }

    /// Runs it. A server that does not know the script, as after a restart, is told it first.
    pub async fn run(&self, link: &Link) -> RedisResult<Value> {
        let evaluate = self.command();
        let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
        match link.query(&evaluate).await {
            Err(error) if error.kind() == unknown => {
                let load = cmd("SCRIPT").arg("LOAD").arg(self.script.code).take();
                link.query::<Value>(&load).await?;
                link.query(&evaluate).await
            }
            answer => answer,
        }
    }

    fn command(&self) -> Cmd {
        let mut command = Cmd::with_capacity(48, 8192);
        command
            .arg("EVALSHA")
            .arg(&self.script.digest)
            .arg(self.keys.len())
            .arg(&self.keys);
        for argument in self.arguments.args_iter() {
            if let Arg::Simple(bytes) = argument {
                command.arg(bytes);
            }
        }
        command
    }
}
