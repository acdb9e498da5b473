//! Archives in buckets.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};

use super::error::chain;
use super::intake::Intake;
use super::{Access, CONNECT_TIMEOUT, FetchError, READ_TIMEOUT, roots};
use crate::model::{Cloud, ObjectRef, RemoteRef};

type Environment = BTreeMap<String, String>;

/// Fetches an object.
pub(super) async fn fetch(
    access: &Access,
    environment: &Environment,
    (object, reference): (&ObjectRef, &RemoteRef),
    limit: u64,
) -> Result<Vec<u8>, FetchError> {
    let bucket = bucket(access, environment, object)?;
    let key = Path::parse(&object.key).map_err(|error| FetchError::Refused(chain(error)))?;
    let got = bucket.get(&key).await.map_err(failed)?;
    let mut intake = Intake::new(reference, limit, Some(got.meta.size))?;
    let mut pieces = got.into_stream();
    while let Some(piece) = pieces.next().await {
        intake.take(&piece.map_err(failed)?)?;
    }
    intake.finish()
}

fn failed(error: object_store::Error) -> FetchError {
    use object_store::Error;
    // Its words are those of its cause already.
    let reason = error.to_string();
    if matches!(error, Error::NotFound { .. }) {
        FetchError::NotFound(reason)
    } else if matches!(
        error,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
    ) {
        FetchError::Denied(reason)
    } else if matches!(error, Error::Generic { .. } | Error::JoinError { .. }) {
        FetchError::Unavailable(reason)
    } else {
        // The rest speaks of requests that are never made here, or of names that cannot be.
        FetchError::Refused(reason)
    }
}

/// The bucket of an object. What the settings leave open is taken from the variables that each cloud's own tools read.
fn bucket(
    access: &Access,
    environment: &Environment,
    object: &ObjectRef,
) -> Result<Arc<dyn ObjectStore>, FetchError> {
    // Attempts are counted outside.
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let name = &object.bucket;
    match object.cloud {
        Cloud::S3 => {
            let options = options(access, access.s3.endpoint.as_deref())?;
            let builder = s3(access, environment).with_bucket_name(name);
            let built = builder
                .with_retry(retry)
                .with_client_options(options)
                .build();
            Ok(Arc::new(built.map_err(|error| unfit("packs.s3", error))?))
        }
        Cloud::Gs => {
            let options = options(access, access.gs.endpoint.as_deref())?;
            let builder = gs(access, environment).with_bucket_name(name);
            let built = builder
                .with_retry(retry)
                .with_client_options(options)
                .build();
            Ok(Arc::new(built.map_err(|error| unfit("packs.gs", error))?))
        }
        Cloud::Az => {
            let options = options(access, access.az.endpoint.as_deref())?;
            let builder = az(access, environment).with_container_name(name);
            let built = builder
                .with_retry(retry)
                .with_client_options(options)
                .build();
            Ok(Arc::new(built.map_err(|error| unfit("packs.az", error))?))
        }
    }
}

fn s3(access: &Access, environment: &Environment) -> AmazonS3Builder {
    let given = &access.s3;
    let mut builder = AmazonS3Builder::new();
    for (key, value) in variables(environment, "AWS_") {
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &given.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &given.region {
        builder = builder.with_region(region);
    }
    if let (Some(id), Some(secret)) = (&given.access_key_id, &given.secret_access_key) {
        builder = builder.with_access_key_id(id);
        builder = builder.with_secret_access_key(secret.expose());
    }
    if let Some(token) = &given.session_token {
        builder = builder.with_token(token.expose());
    }
    if given.anonymous {
        builder = builder.with_skip_signature(true);
    }
    builder
}

fn gs(access: &Access, environment: &Environment) -> GoogleCloudStorageBuilder {
    let given = &access.gs;
    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, value) in variables(environment, "GOOGLE_") {
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &given.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(file) = &given.service_account_file {
        builder = builder.with_service_account_path(file.to_string_lossy());
    }
    if given.anonymous {
        builder = builder.with_skip_signature(true);
    }
    builder
}

fn az(access: &Access, environment: &Environment) -> MicrosoftAzureBuilder {
    let given = &access.az;
    let mut builder = MicrosoftAzureBuilder::new();
    for (key, value) in variables(environment, "AZURE_") {
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &given.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(account) = &given.account {
        builder = builder.with_account(account);
    }
    if let Some(key) = &given.access_key {
        builder = builder.with_access_key(key.expose());
    }
    if given.anonymous {
        builder = builder.with_skip_signature(true);
    }
    builder
}

/// The variables of a cloud's own tools that mean something here.
fn variables<'a, K: FromStr>(
    environment: &'a Environment,
    prefix: &'a str,
) -> impl Iterator<Item = (K, &'a String)> {
    let named = environment.range(prefix.to_owned()..);
    let named = named.take_while(move |(name, _)| name.starts_with(prefix));
    named.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
}

fn options(access: &Access, endpoint: Option<&str>) -> Result<ClientOptions, FetchError> {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut options = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT)
        .with_timeout_disabled();
    if let Some(pem) = roots(access)? {
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|error| unfit("packs.ca_file", error))?;
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn unfit(section: &'static str, error: object_store::Error) -> FetchError {
    FetchError::Settings {
        section,
        reason: error.to_string(),
    }
}
