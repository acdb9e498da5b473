//! Archives in OCI registries: one layer of an artifact, stored as it is. A layer's digest is the SHA-256 of its bytes,
//! and so is a pack id, so the layer to take is known whatever media type the tool gave it that pushed it.

use futures_util::StreamExt;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciEnvelope, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use super::error::chain;
use super::intake::Intake;
use super::{Access, CONNECT_TIMEOUT, FetchError, READ_TIMEOUT, roots};
use crate::model::{OciRef, OciVersion, PackId, RemoteRef};

/// Fetches the layer that is this pack.
pub(super) async fn fetch(
    access: &Access,
    pack: &PackId,
    (oci, reference): (&OciRef, &RemoteRef),
    limit: u64,
) -> Result<Vec<u8>, FetchError> {
    let client = client(access)?;
    let image = image(oci);
    let (manifest, _) = client
        .pull_image_manifest(&image, &login(access, oci))
        .await
        .map_err(failed)?;
    let wanted = pack.to_string();
    let layer = manifest.layers.iter().find(|layer| layer.digest == wanted);
    let layer = layer.ok_or_else(|| FetchError::NoLayer {
        expected: *pack,
        found: manifest.layers.iter().map(described).collect(),
    })?;
    let size = u64::try_from(layer.size).ok();
    let mut intake = Intake::new(reference, limit, size)?;
    let mut pieces = client
        .pull_blob_stream(&image, layer)
        .await
        .map_err(failed)?
        .stream;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| FetchError::Unavailable(chain(error)))?;
        intake.take(&piece)?;
    }
    intake.finish()
}

fn described(layer: &OciDescriptor) -> String {
    format!("{} ({})", layer.digest, layer.media_type)
}

fn image(oci: &OciRef) -> Reference {
    let (registry, repository) = (oci.registry.clone(), oci.repository.clone());
    match &oci.version {
        OciVersion::Tag(tag) => Reference::with_tag(registry, repository, tag.clone()),
        OciVersion::Digest(digest) => Reference::with_digest(registry, repository, digest.clone()),
    }
}

fn login(access: &Access, oci: &OciRef) -> RegistryAuth {
    let Some(host) = access.host(&oci.registry) else {
        return RegistryAuth::Anonymous;
    };
    match (&host.token, &host.username, &host.password) {
        (Some(token), _, _) => RegistryAuth::Bearer(token.expose().to_owned()),
        (None, Some(user), Some(word)) => {
            RegistryAuth::Basic(user.clone(), word.expose().to_owned())
        }
        (None, _, _) => RegistryAuth::Anonymous,
    }
}

fn client(access: &Access) -> Result<Client, FetchError> {
    let plain = access.hosts.iter().filter(|(_, host)| host.plain_http);
    let config = ClientConfig {
        protocol: ClientProtocol::HttpsExcept(plain.map(|(name, _)| name.clone()).collect()),
        extra_root_certificates: certificates(access)?,
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        user_agent: concat!("greentic-worker/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|error| FetchError::Settings {
        section: "packs",
        reason: chain(error),
    })
}

/// The certificates of the settings' file, one by one.
fn certificates(access: &Access) -> Result<Vec<Certificate>, FetchError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let Some(pem) = roots(access)? else {
        return Ok(Vec::new());
    };
    let text = String::from_utf8_lossy(&pem);
    let each = text.split(BEGIN).skip(1).map(|rest| Certificate {
        encoding: CertificateEncoding::Pem,
        data: format!("{BEGIN}{rest}").into_bytes(),
    });
    Ok(each.collect())
}

fn failed(error: OciDistributionError) -> FetchError {
    use OciDistributionError as Oci;
    if let Oci::RegistryError { envelope, .. } = &error {
        return told(envelope);
    }
    if let Oci::ServerError { code, .. } = &error
        && let Some(meant) = FetchError::of_status(*code)
    {
        return meant;
    }
    let hidden = matches!(
        error,
        Oci::UnauthorizedError { .. } | Oci::AuthenticationFailure(_)
    );
    let away = matches!(error, Oci::RequestError(_) | Oci::IoError(_));
    let absent = matches!(error, Oci::ImageManifestNotFoundError(_));
    let reason = chain(error);
    match (hidden, away, absent) {
        (true, ..) => FetchError::Denied(reason),
        (_, true, _) => FetchError::Unavailable(reason),
        (_, _, true) => FetchError::NotFound(reason),
        // The rest says that what the registry holds is no artifact that could be taken.
        _ => FetchError::Refused(reason),
    }
}

/// What a registry says in its own words.
fn told(envelope: &OciEnvelope) -> FetchError {
    let reason = envelope.to_string();
    let any = |known: &[OciErrorCode]| {
        let mut codes = envelope.errors.iter().map(|error| &error.code);
        codes.any(|code| known.contains(code))
    };
    if any(&[
        OciErrorCode::ManifestUnknown,
        OciErrorCode::NameUnknown,
        OciErrorCode::BlobUnknown,
        OciErrorCode::NotFound,
    ]) {
        FetchError::NotFound(reason)
    } else if any(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
        FetchError::Denied(reason)
    } else if any(&[OciErrorCode::Toomanyrequests]) {
        FetchError::Unavailable(reason)
    } else {
        FetchError::Refused(reason)
    }
}
