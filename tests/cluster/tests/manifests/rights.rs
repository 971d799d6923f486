//! What the service and its agents may do, asked of the API server for every resource that it has, and compared with the documentation.

use std::collections::BTreeSet;

use cluster::Cluster;
use cluster::plane::forbidden;
use e2e::lab::Lab;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};

use crate::site::{NAMESPACE, Site, chapter};

const VERBS: [&str; 9] =
    ["create", "get", "list", "watch", "update", "patch", "delete", "deletecollection", "impersonate"];
/// What no listing of resources has.
const PARTS: [&str; 13] = [
    "pods/exec",
    "pods/attach",
    "pods/portforward",
    "pods/log",
    "pods/eviction",
    "pods/status",
    "pods/binding",
    "nodes/proxy",
    "services/proxy",
    "serviceaccounts/token",
    "jobs.batch/status",
    "jobs.batch/finalizers",
    "secrets/status",
];
/// What everybody who is known to a cluster may ask: what they may do themselves.
const OF_EVERYBODY: [&str; 2] =
    ["selfsubjectaccessreviews.authorization.k8s.io", "selfsubjectrulesreviews.authorization.k8s.io"];

/// A resource as kubectl writes it, a name where only one object is meant, and a verb.
type Right = (String, Option<String>, String);

#[test]
fn the_service_may_do_what_the_documentation_says_and_nothing_else() {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab);
    Site::new(&lab).apply(&cluster, "overlays/sqlite");
    let documented = documented();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (account, expected) in [("z-orchestrator", documented), ("z-provisioner-agent", BTreeSet::new())] {
        let client = runtime.block_on(cluster::client(&cluster.kubeconfig_of(account, NAMESPACE))).unwrap();
        let asked = questions(&cluster);
        assert!(asked.len() > 500, "{} questions", asked.len());
        let elsewhere = ["", "default", "kube-system"];
        for namespace in elsewhere {
            let allowed = runtime.block_on(allowed(client.clone(), namespace, asked.clone()));
            assert_eq!(allowed, BTreeSet::new(), "{account} in {namespace:?}");
        }
        assert_eq!(runtime.block_on(allowed(client, NAMESPACE, asked)), expected, "{account}");
    }
    not_only_asked(&cluster);
}

/// The same by deeds.
fn not_only_asked(cluster: &Cluster) {
    let config = cluster.kubeconfig_of("z-orchestrator", NAMESPACE);
    let as_service = |words: &str| cluster.kubectl_run(words).arg("--kubeconfig").arg(&config).done();
    cluster.kubectl("create secret generic other -n kube-system --from-literal=a=b");
    as_service("create secret generic z-r-1-1 --from-literal=token=t").ok();
    as_service("get secret z-r-1-1").ok();
    as_service("get namespace z-provisioner").ok();
    as_service("get jobs,pods,events").ok();
    for refused in [
        "get secrets",
        "delete secret z-r-1-1",
        "get secret other -n kube-system",
        "get namespaces",
        "get nodes",
        "get jobs --all-namespaces",
        "get jobs -n default",
        "get configmaps",
        "create token z-orchestrator",
        "run a --image=none.example/none",
    ] {
        forbidden(as_service(refused));
    }
}

/// The table of the chapter.
fn documented() -> BTreeSet<Right> {
    let chapter = chapter();
    let (_, rest) = chapter.split_once("\n### What the service may do in the cluster\n").unwrap();
    let section = rest.split_once("\n### ").unwrap().0;
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let rights: BTreeSet<Right> = rows
        .flat_map(|row| {
            let mut cells = row.split(" | ");
            let resource = cells.next().unwrap().trim_end_matches('`');
            let (resource, name) = resource.split_once('/').map_or((resource, None), |(of, name)| (of, Some(name)));
            let verbs = cells.next().unwrap().split(", ").map(|verb| verb.trim_matches('`').to_owned());
            verbs.map(|verb| (resource.to_owned(), name.map(str::to_owned), verb)).collect::<Vec<_>>()
        })
        .collect();
    assert!(rights.len() > 10, "{rights:?}");
    rights
}

/// Every verb of every resource that the server has, and of the one namespace.
fn questions(cluster: &Cluster) -> Vec<Right> {
    let known = cluster.kubectl("api-resources -o name");
    let resources: Vec<&str> = known.lines().chain(PARTS).filter(|resource| !OF_EVERYBODY.contains(resource)).collect();
    assert!(resources.contains(&"jobs.batch"), "{resources:?}");
    let of = |resource: &str, name: Option<&str>| {
        VERBS.map(|verb| (resource.to_owned(), name.map(str::to_owned), verb.to_owned()))
    };
    let all = resources.iter().flat_map(|resource| of(resource, None));
    all.chain(of("namespaces", Some(NAMESPACE))).collect()
}

/// Those that are answered with yes.
async fn allowed(client: kube::Client, namespace: &str, questions: Vec<Right>) -> BTreeSet<Right> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client);
    let asked = questions.into_iter().map(|right| {
        let api = api.clone();
        async move {
            let (resource, name, verb) = right.clone();
            let (whole, part) = resource.split_once('/').map_or((&resource[..], None), |(of, part)| (of, Some(part)));
            let (resource, group) = whole.split_once('.').unwrap_or((whole, ""));
            let attributes = ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: part.map(str::to_owned),
                namespace: Some(namespace.to_owned()),
                name,
                verb: Some(verb),
                ..ResourceAttributes::default()
            };
            let spec =
                SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None };
            let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
            let answer = api.create(&PostParams::default(), &review).await?;
            Ok::<_, kube::Error>(answer.status.is_some_and(|status| status.allowed).then_some(right))
        }
    });
    let answers: Vec<Option<Right>> = stream::iter(asked).buffer_unordered(16).try_collect().await.unwrap();
    answers.into_iter().flatten().collect()
}
