//! What Jobs are made of. Old servers drop some of it, so it is looked at here.

use super::*;
use crate::config::Kubernetes;

fn settings(more: Value) -> Settings {
    let mut config = json!({ "image": "example.com/agent@sha256:1", "fabrics": { "a": { "fabric-a": "yes" }, "*": { "any": "yes" } } });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Settings {
        config: serde_json::from_value::<Kubernetes>(config).unwrap(),
        url: "https://z.example.com:7443".into(),
        service: "0123456789abcdef".into(),
        report_within: 300,
        ca: "/ca".into(),
        ticket: "/ticket".into(),
        trust: "/trust".into(),
    }
}

fn order(fabric: &str, is_local: bool) -> Order {
    Order {
        run: "r-1".to_owned().try_into().unwrap(),
        attempt: 2,
        server: "LPAR_7".to_owned().try_into().unwrap(),
        fabric: fabric.to_owned().try_into().unwrap(),
        is_local,
    }
}

fn spec(more: Value, order: &Order) -> Value {
    serde_json::to_value(job(&settings(more), order, 2).unwrap().spec.unwrap()).unwrap()
}

#[test]
fn kubernetes_itself_tries_nothing_again() {
    let spec = spec(json!({ "run_within": 3600, "keep": 60 }), &order("a", false));
    assert_eq!((&spec["backoffLimit"], &spec["completions"], &spec["parallelism"]), (&json!(0), &json!(1), &json!(1)));
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Never");
    assert_eq!(spec["podReplacementPolicy"], "Failed");
    assert_eq!((&spec["activeDeadlineSeconds"], &spec["ttlSecondsAfterFinished"]), (&json!(3600), &json!(60)));
    let rules = spec["podFailurePolicy"]["rules"].as_array().unwrap();
    assert!(rules.iter().all(|rule| rule["action"] == "FailJob"));
    let codes: Vec<&Value> = rules.iter().filter_map(|rule| rule.pointer("/onExitCodes/values")).collect();
    assert_eq!(codes, [&json!([2, 3, 4]), &json!([5, 6, 7, 8])], "every exit code of the agent but success");
    assert_eq!(rules[2]["onPodConditions"][0]["type"], "DisruptionTarget");
    assert_eq!(spec["template"]["metadata"]["finalizers"], json!([FINALIZER]));
}

#[test]
fn a_lun_is_where_its_fabric_is_and_a_device_is_on_its_server() {
    let nodes = |order: Order| spec(json!({}), &order)["template"]["spec"]["nodeSelector"].clone();
    assert_eq!(nodes(order("a", false)), json!({ "fabric-a": "yes" }));
    assert_eq!(nodes(order("b", false)), json!({ "any": "yes" }));
    assert_eq!(nodes(order("a", true)), json!({ "fabric-a": "yes", "kubernetes.io/hostname": "LPAR_7" }));
}

#[test]
fn a_pod_may_what_its_devices_take_and_no_more() {
    let pod = |more| spec(more, &order("a", false))["template"]["spec"].clone();
    let container = |pod: &Value| pod["containers"][0].clone();
    let host = pod(json!({}));
    assert_eq!(container(&host)["securityContext"], json!({ "privileged": true, "readOnlyRootFilesystem": true }));
    assert_eq!((&host["hostNetwork"], &host["automountServiceAccountToken"]), (&json!(true), &json!(false)));
    let paths = |pod: &Value| pod["volumes"].as_array().unwrap().iter().filter(|of| !of["hostPath"].is_null()).count();
    let plugin =
        pod(json!({ "devices": "example.com/disk", "memory_mib": 300, "cpu_milli": 250, "seccomp": "default" }));
    assert_eq!((paths(&host), paths(&plugin), &plugin["hostNetwork"]), (4, 0, &Value::Null));
    assert_eq!((&host["hostIPC"], &plugin["hostIPC"]), (&json!(true), &Value::Null));
    let locks = |pod: &Value| pod["volumes"].as_array().unwrap().iter().any(|of| of["name"] == "cryptsetup");
    assert!(locks(&host) && !locks(&plugin), "LUKS is for the node's own devices");
    let security = &container(&plugin)["securityContext"];
    assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!((&security["allowPrivilegeEscalation"], &security["privileged"]), (&json!(false), &Value::Null));
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(plugin["securityContext"]["supplementalGroups"], json!([6]));
    let resources = &container(&plugin)["resources"];
    assert_eq!(resources["limits"], json!({ "memory": "300Mi", "example.com/disk": "1" }));
    assert_eq!(resources["requests"], json!({ "memory": "300Mi", "cpu": "250m" }));
    let own = container(&pod(json!({ "devices": "example.com/disk" })));
    let profile = json!({ "type": "Localhost", "localhostProfile": "profiles/z-provisioner.json" });
    assert_eq!(own["securityContext"]["seccompProfile"], profile);
}

#[test]
fn the_secret_is_the_jobs_and_has_what_the_arguments_name() {
    let mut job = job(&settings(json!({ "registry_auth": "/auth" })), &order("a", false), 2).unwrap();
    job.metadata.uid = Some("J".into());
    let files = Files { ca: vec![1], ticket: vec![2], trusted: vec![vec![3], vec![4]], registry: Some(vec![5]) };
    let secret = secret(&job, &files, &"t".repeat(43).try_into().unwrap());
    assert_eq!(
        secret["metadata"]["ownerReferences"][0],
        json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "z-r-1-2", "uid": "J" })
    );
    let template = job.spec.clone().unwrap().template.spec.unwrap();
    let arguments = template.containers[0].args.clone().unwrap();
    let mut named: Vec<&str> =
        arguments.iter().filter_map(|argument| argument.strip_prefix("/run/z-provisioner/")).collect();
    named.sort_unstable();
    let mut given: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    given.sort_unstable();
    assert_eq!(named, given);
    assert!(arguments.windows(2).any(|pair| pair == ["--server", "LPAR_7"]), "it knows which machine it is on");
    let budget = budget(&job, "v1");
    assert_eq!((&budget["apiVersion"], &budget["spec"]["minAvailable"]), (&json!("policy/v1"), &json!(1)));
    let labels = template_labels(&job);
    let selected = budget["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(
        selected.iter().all(|(label, value)| labels.get(label).is_some_and(|of| *value == json!(of)))
            && selected.len() == 3
    );
}

fn template_labels(job: &Job) -> BTreeMap<String, String> {
    job.spec.clone().unwrap().template.metadata.unwrap().labels.unwrap()
}

#[test]
fn names_that_are_no_labels_are_annotations() {
    let long = Order { server: "s".repeat(100).try_into().unwrap(), ..order("a", false) };
    let metadata = job(&settings(json!({})), &long, 1).unwrap().metadata;
    assert!(!metadata.labels.unwrap().contains_key(SERVER));
    assert_eq!(metadata.annotations.unwrap()[SERVER], "s".repeat(100));
}
