//! An OCI registry: manifests by tag or digest, blobs by digest with ranges, anonymous, basic or bearer authorization.
//!
//! Follows the OCI distribution specification 1.1 and its token documentation (`WWW-Authenticate: Bearer realm=…`).

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::answer::{Answer, quoted};
use super::client::{Client, Headers, wrong};
use super::locator::{Reference, Version};
use super::{Boxed, Source, SourceOptions, Stream, Waits};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::BlobRef;
use crate::manifest::layout::{self, Choice};

const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
const MAX_TOKEN: u64 = 64 << 10;

/// One repository of a registry.
#[derive(Debug)]
pub struct Registry {
    reference: Reference,
    name: String,
    client: Arc<Client>,
    /// `user:password` in base64, as docker's configuration keeps it.
    basic: Option<Zeroizing<String>>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Registry {
    /// The repository `reference` names; nothing is sent yet.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] when credentials or certificates cannot be used.
    pub fn new(reference: Reference, options: &SourceOptions) -> Result<Self> {
        let basic = match &options.registry_auth {
            Some(config) => credentials(config, &reference.authority)?,
            None => None,
        };
        let name = reference.to_string();
        Ok(Registry { reference, name, client: Client::new(options)?, basic, authorization: Mutex::new(None) })
    }

    fn url(&self, path: &str) -> Result<Url> {
        let Reference { scheme, authority, repository, .. } = &self.reference;
        let text = format!("{scheme}://{authority}/v2/{repository}/{path}");
        Url::parse(&text).map_err(|error| Error::usage(format!("{text}: {error}")))
    }

    /// A GET with whatever authorization the registry asks for.
    async fn get(&self, url: &Url, headers: Headers) -> Result<Answer> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = self.client.get(url, Headers { authorization: known, ..headers.clone() }).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // Also the way a token that has run out is replaced.
        let Some(authorization) = self.authorize(&answer).await? else {
            return Ok(answer);
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization.clone());
        self.client.get(url, Headers { authorization: Some(authorization), ..headers }).await
    }

    async fn authorize(&self, refusal: &Answer) -> Result<Option<HeaderValue>> {
        // A redirect may have led elsewhere; the registry's credentials are not for whoever asks there.
        if refusal.url().origin() != self.url("")?.origin() {
            return Ok(None);
        }
        let challenges = refusal.headers().get_all(header::WWW_AUTHENTICATE);
        for challenge in challenges.iter().filter_map(|value| value.to_str().ok()) {
            let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                return self.token(parameters).await.map(Some);
            }
            if scheme.eq_ignore_ascii_case("basic") {
                return self.basic.as_ref().map(|basic| secret_header("Basic", basic)).transpose();
            }
        }
        Ok(None)
    }

    async fn token(&self, parameters: &str) -> Result<HeaderValue> {
        let mut url = self.token_server(&parameter(parameters, "realm").unwrap_or_default())?;
        let scope =
            parameter(parameters, "scope").unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository));
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = parameter(parameters, "service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let authorization = self.basic.as_ref().map(|basic| secret_header("Basic", basic)).transpose()?;
        let answer = self.client.get(&url, Headers { authorization, ..Headers::default() }).await?;
        let body = Zeroizing::new(answer.into_bytes(MAX_TOKEN).await?);
        let token = serde_json::from_slice::<Token>(&body).ok().and_then(Token::into_text);
        // A token that no header can carry is none either; whoever sent it is not told apart from one who sent nothing.
        let header = token.and_then(|token| secret_header("Bearer", &token).ok());
        header.ok_or_else(|| wrong(&url, format_args!("the token server of {} sends no token", self.name)))
    }

    /// The address in a challenge's `realm`. A registry with TLS has a token server with TLS.
    fn token_server(&self, realm: &str) -> Result<Url> {
        let url = Url::parse(realm).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let refused = |why: &str| Error::corrupt(format!("{} {why}: {}", self.name, quoted(realm.as_bytes())));
        let url = url.ok_or_else(|| refused("names a token server that is no HTTP address"))?;
        if self.reference.scheme == "https" && url.scheme() != "https" {
            return Err(refused("sends us to a token server without TLS"));
        }
        Ok(url)
    }

    async fn manifest_bytes(&self, version: &str, expected: Option<Digest>) -> Result<Vec<u8>> {
        let url = self.url(&format!("manifests/{version}"))?;
        let answer = self.get(&url, Headers { accept: Some(ACCEPT), ..Headers::default() }).await?;
        let bytes = answer.into_bytes(layout::MAX_MANIFEST).await?;
        let found = Digest::of(&bytes);
        if expected.is_some_and(|expected| expected != found) {
            return Err(Error::corrupt(format!("{} sends another manifest, with the digest {found}", self.name)));
        }
        Ok(bytes)
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Token {
    fn into_text(self) -> Option<Zeroizing<String>> {
        self.token.or(self.access_token).filter(|token| !token.is_empty()).map(Zeroizing::new)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MediaType {
    #[serde(default)]
    media_type: String,
}

impl Source for Registry {
    fn name(&self) -> &str {
        &self.name
    }

    fn waits(&self) -> Waits {
        self.client.waits()
    }

    fn manifest<'a>(&'a self, choice: &'a Choice) -> Boxed<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            let (version, expected) = match &self.reference.version {
                Version::Tag(tag) => (tag.clone(), None),
                Version::Digest(digest) => (digest.to_string(), Some(*digest)),
            };
            let bytes = self.manifest_bytes(&version, expected).await?;
            let is_index =
                serde_json::from_slice::<MediaType>(&bytes).is_ok_and(|found| found.media_type.contains("image.index"));
            if !is_index {
                return Ok(bytes);
            }
            let chosen = layout::choose(&bytes, choice)?;
            self.manifest_bytes(&chosen.digest.to_string(), Some(chosen.digest)).await
        })
    }

    fn range(&self, blob: BlobRef, range: Range<u64>) -> Boxed<'_, Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let url = self.url(&format!("blobs/{}", blob.digest))?;
            let headers = Headers { range: Some(range.clone()), ..Headers::default() };
            self.get(&url, headers).await?.into_range(blob, &range)
        })
    }
}

/// `user:password` (base64) for a host in docker's `config.json`.
fn credentials(config: &[u8], authority: &str) -> Result<Option<Zeroizing<String>>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        auths: std::collections::HashMap<String, Auth>,
    }
    #[derive(Deserialize)]
    struct Auth {
        auth: Option<String>,
    }
    let config: Config = serde_json::from_slice(config).map_err(|error| {
        Error::usage(format!("the registry credentials are not in the format of docker's config.json: {error}"))
    })?;
    let found = config.auths.into_iter().find(|(host, _)| {
        let host = host.trim_start_matches("https://").trim_start_matches("http://");
        host.split('/').next() == Some(authority)
    });
    let Some(auth) = found.and_then(|(_, auth)| auth.auth).map(Zeroizing::new) else {
        return Ok(None);
    };
    match BASE64_STANDARD.decode(auth.as_bytes()).map(Zeroizing::new) {
        Ok(decoded) if decoded.contains(&b':') => Ok(Some(auth)),
        _ => Err(Error::usage(format!("the registry credentials for {authority} are not base64 of user:password"))),
    }
}

fn secret_header(scheme: &str, secret: &str) -> Result<HeaderValue> {
    let value = Zeroizing::new(format!("{scheme} {secret}"));
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| Error::usage("a credential has characters that no HTTP header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A parameter of a challenge: `key="value"`, as RFC 9110 §11.2 writes it, without escapes inside the value.
fn parameter(parameters: &str, key: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_start_matches([',', ' ']).trim();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if name.eq_ignore_ascii_case(key) {
            return Some(value.trim().to_owned());
        }
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_challenges() {
        let challenge =
            r#"realm="https://auth.example.com/token",service="registry, one",scope="repository:a:pull,push""#;
        assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth.example.com/token"));
        assert_eq!(parameter(challenge, "service").as_deref(), Some("registry, one"));
        assert_eq!(parameter(challenge, "scope").as_deref(), Some("repository:a:pull,push"));
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(parameter("realm=plain, x=1", "x").as_deref(), Some("1"));
    }

    #[test]
    fn finds_credentials_by_host() {
        let config = br#"{"auths":{"https://registry.example.com/v1/":{"auth":"dTpw"},"other":{"auth":"???"}}}"#;
        assert_eq!(credentials(config, "registry.example.com").unwrap().as_deref(), Some(&"dTpw".to_owned()));
        assert!(credentials(config, "elsewhere").unwrap().is_none());
        assert!(credentials(config, "other").is_err());
        assert!(credentials(b"{", "other").is_err());
    }
}
