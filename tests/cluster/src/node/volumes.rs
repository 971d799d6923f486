//! A pod's volumes, as folders of this machine, with the owners and modes that a kubelet gives them.
//!
//! What they are made of is read once: a Secret that changes later is not seen by a pod that runs.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{
    ConfigMap, KeyToPath, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount, Volume,
    VolumeProjection,
};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::engine::Engine;
use super::shared::{Shared, place};

/// What is mounted: a folder or file, or memory of at most so many bytes.
pub type Source = Result<PathBuf, Option<String>>;

/// Files of a volume: path in it, contents, mode.
type Files = Vec<(String, Vec<u8>, u32)>;

/// Makes all volumes of a pod.
///
/// # Errors
/// Why one cannot be made yet.
pub async fn make(shared: &Shared, pod: &Pod, folder: &Path) -> Result<BTreeMap<String, Source>, String> {
    let mut made = BTreeMap::new();
    let spec = pod.spec.as_ref().ok_or("a pod without a specification")?;
    for volume in spec.volumes.iter().flatten() {
        let source = one(shared, pod, volume, &folder.join(&volume.name)).await;
        let source = source.map_err(|why| format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name))?;
        made.insert(volume.name.clone(), source);
    }
    Ok(made)
}

async fn one(shared: &Shared, pod: &Pod, volume: &Volume, at: &Path) -> Result<Source, String> {
    let fill = |files: Files| fill(pod, at, &files).map(|()| Ok(at.to_owned()));
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.clone().unwrap_or_default();
        let mode = mode(secret.default_mode);
        return fill(of_secret(shared, pod, &name, secret.items.as_deref(), secret.optional, mode).await?);
    }
    if let Some(map) = &volume.config_map {
        return fill(of_map(shared, pod, &map.name, map.items.as_deref(), map.optional, mode(map.default_mode)).await?);
    }
    if let Some(projected) = &volume.projected {
        let mut files = Files::new();
        for source in projected.sources.iter().flatten() {
            files.extend(projection(shared, pod, source, mode(projected.default_mode)).await?);
        }
        return fill(files);
    }
    if let Some(empty) = &volume.empty_dir {
        let memory = empty.medium.as_deref() == Some("Memory") && matches!(shared.engine, Engine::Podman(_));
        if memory {
            return Ok(Err(empty.size_limit.as_ref().map(|size| podmans(&size.0))));
        }
        folder(at, 0o777)?;
        return Ok(Ok(at.to_owned()));
    }
    if let Some(host) = &volume.host_path {
        return on_host(Path::new(&host.path), host.type_.as_deref().unwrap_or_default()).map(Ok);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return claimed(shared, pod, &claim.claim_name).await.map(Ok);
    }
    Err("nodes of the tests know no volumes of this kind".into())
}

/// A quantity in the words of mount's options: `16Mi` is `16m` there.
pub fn podmans(quantity: &str) -> String {
    quantity.trim_end_matches('i').to_lowercase()
}

fn mode(bits: Option<i32>) -> u32 {
    bits.map_or(0o644, i32::cast_unsigned)
}

async fn of_secret(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<Files, String> {
    let api: Api<Secret> = Api::namespaced(shared.client.clone(), &place(pod).0);
    let found = shared.insist(|| api.get_opt(name)).await.map_err(|error| error.to_string())?;
    match found {
        Some(secret) => {
            let data = secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
            chosen(&data.collect(), items, mode)
        }
        None if optional == Some(true) => Ok(Files::new()),
        None => Err(format!("secret {name:?} not found")),
    }
}

async fn of_map(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<Files, String> {
    let api: Api<ConfigMap> = Api::namespaced(shared.client.clone(), &place(pod).0);
    let found = shared.insist(|| api.get_opt(name)).await.map_err(|error| error.to_string())?;
    match found {
        Some(map) => {
            let text = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
            let bytes = map.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
            chosen(&text.chain(bytes).collect(), items, mode)
        }
        None if optional == Some(true) => Ok(Files::new()),
        None => Err(format!("configmap {name:?} not found")),
    }
}

fn chosen(data: &BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>, mode: u32) -> Result<Files, String> {
    let Some(items) = items else {
        return Ok(data.iter().map(|(key, bytes)| (key.clone(), bytes.clone(), mode)).collect());
    };
    let item = |item: &KeyToPath| {
        let bytes = data.get(&item.key).ok_or_else(|| format!("references non-existent key: {}", item.key))?;
        Ok((item.path.clone(), bytes.clone(), item.mode.map_or(mode, i32::cast_unsigned)))
    };
    items.iter().map(item).collect()
}

async fn projection(shared: &Shared, pod: &Pod, source: &VolumeProjection, mode: u32) -> Result<Files, String> {
    if let Some(secret) = &source.secret {
        return of_secret(shared, pod, &secret.name, secret.items.as_deref(), secret.optional, mode).await;
    }
    if let Some(map) = &source.config_map {
        return of_map(shared, pod, &map.name, map.items.as_deref(), map.optional, mode).await;
    }
    if let Some(token) = &source.service_account_token {
        let bytes = token_of(shared, pod, token.audience.as_deref(), token.expiration_seconds).await?;
        return Ok(vec![(token.path.clone(), bytes, 0o600)]);
    }
    let mut files = Files::new();
    for item in source.downward_api.iter().flat_map(|api| api.items.iter().flatten()) {
        let field = item.field_ref.as_ref().ok_or("only fieldRef is known of the downward API")?;
        let text = super::environment::field(shared, pod, &field.field_path)?;
        files.push((item.path.clone(), text.into_bytes(), mode));
    }
    Ok(files)
}

async fn token_of(shared: &Shared, pod: &Pod, audience: Option<&str>, seconds: Option<i64>) -> Result<Vec<u8>, String> {
    let (namespace, name) = place(pod);
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or("default".into());
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": audience.into_iter().collect::<Vec<_>>(), "expirationSeconds": seconds.unwrap_or(3600),
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod.metadata.uid},
        },
    });
    let api: Api<ServiceAccount> = Api::namespaced(shared.client.clone(), &namespace);
    let post = PostParams::default();
    let given =
        shared.insist(|| api.create_subresource::<Value, TokenRequest>("token", &account, &post, &request)).await;
    let given = given.map_err(|error| format!("a token of {account:?}: {error}"))?;
    Ok(given.status.map(|status| status.token.into_bytes()).unwrap_or_default())
}

async fn claimed(shared: &Shared, pod: &Pod, name: &str) -> Result<PathBuf, String> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(shared.client.clone(), &place(pod).0);
    let claim = shared.insist(|| claims.get(name)).await.map_err(|error| error.to_string())?;
    let bound = claim.spec.and_then(|spec| spec.volume_name).ok_or_else(|| format!("claim {name:?} is not bound"))?;
    let volumes: Api<PersistentVolume> = Api::all(shared.client.clone());
    let volume = shared.insist(|| volumes.get(&bound)).await.map_err(|error| error.to_string())?;
    let host =
        volume.spec.and_then(|spec| spec.host_path).ok_or("nodes of the tests know only volumes with a hostPath")?;
    on_host(Path::new(&host.path), host.type_.as_deref().unwrap_or_default())
}

fn on_host(path: &Path, kind: &str) -> Result<PathBuf, String> {
    let fine = match kind {
        "DirectoryOrCreate" => {
            std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
            true
        }
        "Directory" => path.is_dir(),
        "File" => path.is_file(),
        _ => path.exists(),
    };
    if fine {
        Ok(path.to_owned())
    } else {
        Err(format!("hostPath type check failed: {} is not a {kind}", path.display()))
    }
}

fn folder(at: &Path, mode: u32) -> Result<(), String> {
    let made = std::fs::create_dir_all(at).and_then(|()| std::fs::set_permissions(at, PermissionsExt::from_mode(mode)));
    made.map_err(|error| format!("{}: {error}", at.display()))
}

fn fill(pod: &Pod, at: &Path, files: &Files) -> Result<(), String> {
    let group = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    folder(at, 0o755)?;
    for (path, bytes, mode) in files {
        let file = at.join(path);
        file.parent().map_or(Ok(()), |parent| folder(parent, 0o755))?;
        // As a kubelet does: the group of a pod's volumes may read what the owner may.
        let mode = if group.is_some() { mode | (mode & 0o400) >> 3 } else { *mode };
        // An earlier attempt may have left one that cannot be written.
        let _ = std::fs::remove_file(&file);
        let written = std::fs::write(&file, bytes)
            .and_then(|()| group.map_or(Ok(()), |group| chown(&file, None, Some(group))))
            .and_then(|()| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)));
        written.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}
