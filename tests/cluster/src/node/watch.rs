//! The pods that are bound to this node: each is given a life, and told when it is to end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;

use super::life::Life;
use super::shared::{Shared, Wish, place};

/// Watches for ever.
pub async fn watch(shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let ours = watcher::Config::default().fields(&format!("spec.nodeName={}", shared.name));
    let mut listed = HashSet::new();
    let mut events = Box::pin(watcher::watcher(pods, ours));
    while let Some(event) = events.next().await {
        shared.reachable().await;
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.extend(pod.uid());
                tell(&shared, pod);
            }
            Ok(Event::InitDone) => {
                let gone: Vec<String> = shared.wishes().keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| forget(&shared, uid));
            }
            Ok(Event::Apply(pod)) => tell(&shared, pod),
            Ok(Event::Delete(pod)) => pod.uid().iter().for_each(|uid| forget(&shared, uid)),
            // The API server does not answer; the stream goes on by itself.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn tell(shared: &Arc<Shared>, pod: Pod) {
    let Some(uid) = pod.uid() else { return };
    let delete =
        pod.metadata.deletion_timestamp.is_some().then(|| pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    let mut wishes = shared.wishes();
    let (_, wish) = wishes.entry(uid).or_insert_with(|| {
        let (namespace, name) = place(&pod);
        let (sender, receiver) = watch::channel(Wish { delete, evict: false });
        tokio::spawn(Life::new(Arc::clone(shared), pod, receiver).live());
        (format!("{namespace}/{name}"), sender)
    });
    wish.send_if_modified(|wish| delete.is_some() && std::mem::replace(&mut wish.delete, delete) != delete);
}

/// A pod that is gone, whoever has removed it: what runs of it ends at once.
fn forget(shared: &Arc<Shared>, uid: &str) {
    if let Some((_, wish)) = shared.wishes().remove(uid) {
        // The life holds only a receiver: it sees this last value.
        wish.send_modify(|wish| wish.delete = Some(wish.delete.unwrap_or(0)));
    }
}
