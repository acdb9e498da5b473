//! NATS and Redis as containers.

use testcontainers::core::{ContainerPort, IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use super::guarded::when_we_end;
use super::servers::setting;

/// The public images. `./dev images` builds stand-ins of the same names where no registry can be reached.
const NATS_IMAGE: &str = "nats:2.12-alpine";
const REDIS_IMAGE: &str = "redis:7.2-alpine";

/// A pair of running containers: dropped, they are removed.
pub struct Containers {
    pub nats_url: String,
    pub redis_url: String,
    _containers: [ContainerAsync<GenericImage>; 2],
}

/// Starts both and waits until they say that they are ready.
pub async fn start() -> Result<Containers, String> {
    let session = format!("{:016x}", fastrand::u64(..));
    // The statics that keep containers for all tests are never dropped. Asked to end in the midst of it, the Docker
    // engine still finishes what it began, hence the second look.
    let remove = r#"
        for pause in 0 2; do
            sleep "$pause"
            docker ps --all --quiet --filter "label=greentic-it=$1" | xargs docker rm --force --volumes
        done"#;
    when_we_end(remove, &session).map_err(|error| error.to_string())?;
    let (nats, redis) = tokio::join!(nats(&session), redis(&session));
    let ((nats, nats_url), (redis, redis_url)) = (nats?, redis?);
    Ok(Containers {
        nats_url,
        redis_url,
        _containers: [nats, redis],
    })
}

async fn nats(session: &str) -> Result<(ContainerAsync<GenericImage>, String), String> {
    let (name, tag) = image("IT_NATS_IMAGE", NATS_IMAGE)?;
    let image = GenericImage::new(name, tag)
        .with_exposed_port(4222.tcp())
        .with_wait_for(WaitFor::message_on_stderr("Server is ready"))
        .with_label("greentic-it", session)
        .with_cmd([
            "nats-server",
            "--jetstream",
            "--store_dir",
            "/tmp/jetstream",
        ]);
    let (container, address) = run(image, 4222.tcp()).await?;
    Ok((container, format!("nats://{address}")))
}

async fn redis(session: &str) -> Result<(ContainerAsync<GenericImage>, String), String> {
    let (name, tag) = image("IT_REDIS_IMAGE", REDIS_IMAGE)?;
    let image = GenericImage::new(name, tag)
        .with_exposed_port(6379.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
        .with_label("greentic-it", session)
        .with_cmd(["redis-server", "--protected-mode", "no", "--save", ""]);
    let (container, address) = run(image, 6379.tcp()).await?;
    Ok((container, format!("redis://{address}")))
}

async fn run(
    image: impl Into<testcontainers::ContainerRequest<GenericImage>> + Send,
    port: ContainerPort,
) -> Result<(ContainerAsync<GenericImage>, String), String> {
    let container = image.into().start().await.map_err(|error| chain(&error))?;
    let host = container.get_host().await.map_err(|error| chain(&error))?;
    let port = container.get_host_port_ipv4(port).await;
    let port = port.map_err(|error| chain(&error))?;
    // The port is the IPv4 one, and `localhost` may be looked up as IPv6 first.
    let host = host.to_string().replace("localhost", "127.0.0.1");
    Ok((container, format!("{host}:{port}")))
}

fn image(variable: &str, default: &str) -> Result<(String, String), String> {
    let full = setting(variable).unwrap_or_else(|| default.to_owned());
    // A colon before the last slash is a registry's port.
    match full.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => Ok((name.to_owned(), tag.to_owned())),
        _ => Err(format!("{variable}: `{full}` has no tag")),
    }
}

/// The error and its causes: testcontainers' own text leaves out why.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
