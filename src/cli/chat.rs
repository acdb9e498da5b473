//! `chat`: a provider in the terminal.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::io::{AsyncBufRead, BufReader};

use super::{Configured, Failure};
use crate::adapters::nats;
use crate::adapters::system::RandomIds;
use crate::adapters::wasm::Compiler;
use crate::app::{Embedding, Loader};
use crate::chat::{ChatError, Embedded, Link, Options, Remote, talk};
use crate::model::{Headers, TenantId, header};
use crate::settings::{Loaded, environment};

/// Talks as one user of one tenant.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --nats everything runs in this process: an in-process bus and in-memory sessions, gone when \
                        it ends. With --nats it is a provider on that server, and a worker must be up."
)]
pub struct Chat {
    /// The tenant to talk to; needed unless the gtbinds bind exactly one
    #[arg(long)]
    tenant: Option<TenantId>,
    /// The user to be
    #[arg(long, default_value = "you")]
    user: String,
    /// The conversation to go on with; a new one if not given
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
    /// Talk through the NATS server at this URL, to workers that run elsewhere
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Begin with this pack: its id, `sha256:…`
    #[arg(long, value_name = "PACK_ID")]
    pack: Option<String>,
    /// Begin with this flow
    #[arg(long, value_name = "FLOW")]
    flow: Option<String>,
    /// Read the lines from this file, `-` for standard input, and show them too
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// How long to wait for the first reply to a line, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    patience: u64,
    #[command(flatten)]
    configured: Configured,
}

pub fn run(chat: Chat) -> Result<(), Failure> {
    let Some(loaded) = chat.configured.load()? else {
        return Ok(());
    };
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio.block_on(async {
        match &chat.nats {
            Some(url) => remote(&chat, url, &loaded).await,
            None => embedded(&chat, &loaded).await,
        }
    })
}

async fn remote(chat: &Chat, url: &str, loaded: &Loaded) -> Result<(), Failure> {
    let tenant = chat
        .tenant
        .clone()
        .ok_or_else(|| anyhow!("--tenant is needed with --nats"))?;
    let config = nats::Config {
        url: url.to_owned(),
        name: "greentic-chat".to_owned(),
        ..loaded.settings.nats.clone()
    };
    let client = nats::client(&config)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))?;
    let mut link = Remote::open(client, &config.names(), &tenant)
        .await
        .map_err(anyhow::Error::from)?;
    converse(chat, tenant, &mut link).await
}

async fn embedded(chat: &Chat, loaded: &Loaded) -> Result<(), Failure> {
    let compiler = Compiler::of_this_program();
    let loader = Loader::compiling(&loaded.settings, environment(), compiler)?;
    let bound = loader.load().await?;
    for warning in loaded.warnings.iter().chain(bound.warnings.iter()) {
        super::warn(warning)?;
    }
    let Embedding {
        bus,
        published,
        tenants,
    } = Embedding::start(&loaded.settings, bound);
    let tenant = match (&chat.tenant, &tenants[..]) {
        (Some(tenant), _) if !tenants.contains(tenant) => {
            return Err(anyhow!(
                "no gtbind binds tenant {tenant}; bound are: {}",
                names(&tenants)
            )
            .into());
        }
        (Some(tenant), _) | (None, [tenant]) => tenant.clone(),
        (None, _) => {
            return Err(anyhow!("say which tenant with --tenant: {}", names(&tenants)).into());
        }
    };
    let mut link = Embedded::new(bus, published, tenant.clone());
    converse(chat, tenant, &mut link).await
}

fn names(tenants: &[TenantId]) -> String {
    tenants
        .iter()
        .map(TenantId::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

async fn converse<L: Link>(chat: &Chat, tenant: TenantId, link: &mut L) -> Result<(), Failure> {
    let mut start = Headers::default();
    for (name, value) in [(header::PACK_ID, &chat.pack), (header::FLOW_ID, &chat.flow)] {
        if let Some(value) = value {
            start.push(name, value);
        }
    }
    let options = Options {
        tenant,
        user: chat.user.clone(),
        conversation: chat.conversation.clone(),
        start,
        echo: chat.script.is_some() || !io::stdin().is_terminal(),
        patience: Duration::from_secs(chat.patience),
    };
    let talked = talk(link, &RandomIds, options, lines(chat)?, io::stdout()).await;
    talked.map_err(|error| match error {
        ChatError::Link(error) => Failure::Unavailable(error.to_string()),
        ChatError::Terminal(error) => Failure::from(error),
    })
}

fn lines(chat: &Chat) -> Result<Box<dyn AsyncBufRead + Unpin>, Failure> {
    match chat.script.as_deref() {
        None => Ok(Box::new(BufReader::new(tokio::io::stdin()))),
        Some(path) if path.as_os_str() == "-" => Ok(Box::new(BufReader::new(tokio::io::stdin()))),
        Some(path) => {
            let text =
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Box::new(io::Cursor::new(text)))
        }
    }
}
