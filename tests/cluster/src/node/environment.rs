//! A container as a kubelet understands it: environment, arguments, security, put into an [`Order`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, Pod, PodSecurityContext, SeccompProfile, Secret, SecurityContext, Service,
};
use kube::Api;
use kube::api::ListParams;

use super::engine::{Mount, Order};
use super::shared::{Shared, place};
use super::volumes::{Source, podmans};

/// What to start.
///
/// # Errors
/// Why it cannot be started: `CreateContainerConfigError`, as a kubelet calls it.
pub async fn order(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    volumes: &BTreeMap<String, Source>,
    devices: &BTreeMap<String, Vec<PathBuf>>,
) -> Result<Order, String> {
    let environment = environment(shared, pod, container).await?;
    let expand =
        |words: &Option<Vec<String>>| words.iter().flatten().map(|word| expanded(word, &environment)).collect();
    let common = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.clone()).unwrap_or_default();
    let mut order = Order {
        name: name(pod, &container.name),
        image: container.image.clone().unwrap_or_default(),
        command: expand(&container.command),
        arguments: expand(&container.args),
        folder: container.working_dir.clone(),
        mounts: mounts(container, volumes)?,
        devices: limits.keys().flat_map(|name| devices.get(name).cloned().unwrap_or_default()).collect(),
        hosts: hosts(shared, pod).await,
        host_ipc: pod.spec.as_ref().is_some_and(|spec| spec.host_ipc == Some(true)),
        memory: limits.get("memory").map(|bytes| podmans(&bytes.0)),
        environment,
        ..Order::default()
    };
    secure(&mut order, shared, &common, &own)?;
    Ok(order)
}

/// A container's name on this machine.
pub fn name(pod: &Pod, container: &str) -> String {
    format!("{}-{container}", pod.metadata.uid.as_deref().unwrap_or_default())
}

fn secure(
    order: &mut Order,
    shared: &Shared,
    common: &PodSecurityContext,
    own: &SecurityContext,
) -> Result<(), String> {
    let user = own.run_as_user.or(common.run_as_user);
    order.user = user.map(|user| (user, own.run_as_group.or(common.run_as_group)));
    if user.is_none_or(|user| user == 0)
        && own.run_as_non_root.or(common.run_as_non_root) == Some(true)
        && user.is_some()
    {
        return Err("container's runAsUser breaks non-root policy".into());
    }
    order.groups = common.supplemental_groups.iter().flatten().copied().chain(common.fs_group).collect();
    order.privileged = own.privileged == Some(true);
    order.read_only = own.read_only_root_filesystem == Some(true);
    order.no_new_privileges = own.allow_privilege_escalation == Some(false);
    if let Some(capabilities) = &own.capabilities {
        order.capabilities = [&capabilities.drop, &capabilities.add].map(|list| list.clone().unwrap_or_default());
    }
    order.seccomp = seccomp(own.seccomp_profile.as_ref().or(common.seccomp_profile.as_ref()), shared)?;
    Ok(())
}

/// A kubelet that is told nothing confines nothing, unless it is configured to.
fn seccomp(profile: Option<&SeccompProfile>, shared: &Shared) -> Result<Option<String>, String> {
    match profile.map(|profile| (profile.type_.as_str(), &profile.localhost_profile)) {
        Some(("RuntimeDefault", _)) => Ok(None),
        Some(("Localhost", Some(file))) => {
            let path = shared.profiles.join(file);
            let there = path.is_file().then(|| path.display().to_string());
            there.map(Some).ok_or_else(|| format!("cannot load seccomp profile {:?}", path.display()))
        }
        _ => Ok(Some("unconfined".into())),
    }
}

fn mounts(container: &Container, volumes: &BTreeMap<String, Source>) -> Result<Vec<Mount>, String> {
    let mount = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let source = volumes.get(&mount.name).ok_or_else(|| format!("volume {:?} is not the pod's", mount.name))?;
        let source = match (source, &mount.sub_path) {
            (Ok(folder), Some(below)) => Ok(folder.join(below)),
            (source, _) => source.clone(),
        };
        Ok(Mount { source, target: mount.mount_path.clone(), read_only: mount.read_only == Some(true) })
    };
    container.volume_mounts.iter().flatten().map(mount).collect()
}

/// Nobody resolves the names of Services here: every pod has the machine's network, so all of them are at its loopback, each at the port
/// that its pods listen on.
async fn hosts(shared: &Shared, pod: &Pod) -> Vec<(String, String)> {
    let services: Api<Service> = Api::all(shared.client.clone());
    let all = ListParams::default();
    let services = shared.insist(|| services.list(&all)).await;
    let named = services.map(|list| list.items).unwrap_or_default().into_iter().flat_map(|service| {
        let name = service.metadata.name.unwrap_or_default();
        let namespace = service.metadata.namespace.unwrap_or_default();
        let long = ["", ".svc", ".svc.cluster.local"].map(|end| format!("{name}.{namespace}{end}"));
        let short = (namespace == place(pod).0).then_some(name);
        long.into_iter().chain(short).map(|name| (name, "127.0.0.1".to_owned()))
    });
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    let aliases = aliases.flat_map(|alias| {
        alias.hostnames.iter().flatten().map(|name| (name.clone(), alias.ip.clone())).collect::<Vec<_>>()
    });
    aliases.chain(named).collect()
}

async fn environment(shared: &Shared, pod: &Pod, container: &Container) -> Result<Vec<(String, String)>, String> {
    let (host, port) = &shared.server;
    let mut all = vec![
        ("KUBERNETES_SERVICE_HOST".to_owned(), host.clone()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), port.to_string()),
        ("HOSTNAME".to_owned(), place(pod).1),
    ];
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(shared, pod, variable).await? {
            all.push((variable.name.clone(), expanded(&value, &all)));
        }
    }
    Ok(all)
}

async fn value(shared: &Shared, pod: &Pod, variable: &EnvVar) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else { return Ok(Some(variable.value.clone().unwrap_or_default())) };
    let namespace = place(pod).0;
    if let Some(field_ref) = &from.field_ref {
        return field(shared, pod, &field_ref.field_path).map(Some);
    }
    let (found, name, key, optional) = if let Some(secret) = &from.secret_key_ref {
        let api: Api<Secret> = Api::namespaced(shared.client.clone(), &namespace);
        let found = shared.insist(|| api.get_opt(&secret.name)).await.map_err(|error| error.to_string())?;
        let bytes = found.and_then(|found| found.data?.remove(&secret.key)).map(|bytes| bytes.0);
        (bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()), &secret.name, &secret.key, secret.optional)
    } else if let Some(map) = &from.config_map_key_ref {
        let api: Api<ConfigMap> = Api::namespaced(shared.client.clone(), &namespace);
        let found = shared.insist(|| api.get_opt(&map.name)).await.map_err(|error| error.to_string())?;
        (found.and_then(|found| found.data?.remove(&map.key)), &map.name, &map.key, map.optional)
    } else {
        return Err(format!("nodes of the tests do not know where {} is from", variable.name));
    };
    match found {
        None if optional != Some(true) => Err(format!("couldn't find key {key} in {name:?}")),
        found => Ok(found),
    }
}

/// A field of the downward API.
///
/// # Errors
/// That it is none.
pub fn field(shared: &Shared, pod: &Pod, path: &str) -> Result<String, String> {
    let (namespace, name) = place(pod);
    let keyed = |kind: &str, map: &Option<BTreeMap<String, String>>| {
        let key = path.strip_prefix(kind)?.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    match path {
        "metadata.name" => Ok(name),
        "metadata.namespace" => Ok(namespace),
        "metadata.uid" => Ok(pod.metadata.uid.clone().unwrap_or_default()),
        "spec.nodeName" => Ok(shared.name.clone()),
        "spec.serviceAccountName" => {
            Ok(pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default())
        }
        "status.hostIP" | "status.podIP" => Ok("127.0.0.1".into()),
        _ => keyed("metadata.labels", &pod.metadata.labels)
            .or_else(|| keyed("metadata.annotations", &pod.metadata.annotations))
            .ok_or_else(|| format!("there is no field {path}")),
    }
}

/// `$(NAME)` replaced where there is such a variable; `$$` is one `$`.
fn expanded(text: &str, environment: &[(String, String)]) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        plain.push_str(before);
        let named = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        let found = named.and_then(|(name, after)| {
            let value = environment.iter().rev().find(|(one, _)| one == name)?;
            Some((value.1.as_str(), after))
        });
        let (put, left) = found.or_else(|| after.strip_prefix('$').map(|after| ("$", after))).unwrap_or(("$", after));
        plain.push_str(put);
        rest = left;
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_the_api_says() {
        let environment = [("A".to_owned(), "x".to_owned())];
        let cases = [("$(A)/$(A)", "x/x"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("no", "no"), ("$", "$")];
        for (text, plain) in cases {
            assert_eq!(expanded(text, &environment), plain, "{text}");
        }
    }
}
