use super::*;
use crate::store::Location;

#[test]
fn an_empty_configuration_is_the_default() {
    let config = Config::parse(b"{}").unwrap();
    assert_eq!(config, Config::default());
    config.check().unwrap();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(Config::parse(text.as_bytes()).unwrap(), config, "what is written is read again");
    let names: Vec<_> = config.all_names().unwrap().iter().map(|name| name.to_str().into_owned()).collect();
    assert_eq!(names, ["localhost", "127.0.0.1", "::1"]);
    assert_eq!(config.location(Path::new("/d")).unwrap(), Location::File("/d/runs.sqlite".into()));
    assert_eq!(config.process_ca(Path::new("/d")), Some("/d/ca.pem".into()));
}

#[test]
fn concrete_addresses_and_names_are_in_the_certificate() {
    let config =
        Config::parse(br#"{"listen": ["0.0.0.0:1", "192.0.2.7:1", "[::]:2"], "names": ["z.example", "localhost"]}"#);
    let names: Vec<_> = config.unwrap().all_names().unwrap().iter().map(|name| name.to_str().into_owned()).collect();
    assert_eq!(names, ["localhost", "127.0.0.1", "::1", "192.0.2.7", "z.example"]);
}

/// A value out of its bounds is refused by the name of its key, with a remedy.
#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let cases = [
        (r#"{"listen": []}"#, "`listen`"),
        (r#"{"listen": ["localhost"]}"#, "invalid socket address"),
        (r#"{"listen": ["127.0.0.1:1", "127.0.0.1:1"]}"#, "`listen` names one address twice"),
        (r#"{"names": ["z.example:7443"]}"#, "`names`"),
        (r#"{"names": ["*.example"]}"#, "`names`"),
        (r#"{"data": ""}"#, "`data`"),
        (r#"{"store": "mysql://x"}"#, "`store`"),
        (r#"{"store": "postgres://u:p@:bad:/"}"#, "`store`"),
        (r#"{"store": "postgres://a/b", "store_file": "/f"}"#, "`store` and `store_file`"),
        (r#"{"tls": {"certificate": "/c"}}"#, "missing field `key`"),
        (r#"{"tls": {"certificate": "/c", "key": ""}}"#, "`tls.key`"),
        (r#"{"names": ["a.b"], "tls": {"certificate": "/c", "key": "/k"}}"#, "`names` is given with `tls`"),
        (r#"{"clients": {"authority": ""}}"#, "`clients.authority` is empty"),
        (r#"{"clients": {"viewers": ["a.b"]}}"#, "`clients.viewers` is given without `clients.authority`"),
        (r#"{"clients": {"authority": "/a", "operators": ["*.a.b"]}}"#, "`clients.operators`"),
        (r#"{"clients": {"authority": "/a", "operators": ["a b"]}}"#, "`clients.operators`"),
        (r#"{"lease": {"seconds": 4}}"#, "`lease.seconds`"),
        (r#"{"lease": {"seconds": 20, "renew_after": 11}}"#, "`lease.renew_after`"),
        (r#"{"lease": {"grace": 3601}}"#, "`lease.grace`"),
        (r#"{"limits": {"runs": 0}}"#, "`limits.runs`"),
        (r#"{"limits": {"per_source": 100001}}"#, "`limits.per_source`"),
        (r#"{"limits": {"watchers": 0}}"#, "`limits.watchers`"),
        (r#"{"limits": {"per_fabric": {"a b": 1}}}"#, "`limits.per_fabric`"),
        (r#"{"limits": {"per_fabric": {"a": 0}}}"#, "`limits.per_fabric.a`"),
        (r#"{"retry": {"first_seconds": 0}}"#, "`retry.first_seconds`"),
        (r#"{"retry": {"first_seconds": 60, "most_seconds": 59}}"#, "`retry.most_seconds`"),
        (r#"{"patience": {"enrol": 1}}"#, "`patience.enrol`"),
        (r#"{"patience": {"cancel": 0}}"#, "`patience.cancel`"),
        (r#"{"report_within": 0}"#, "`report_within`"),
        (r#"{"retention": {"days": 0}}"#, "`retention.days`"),
        (r#"{"retention": {"days": 36501}}"#, "`retention.days`"),
        (r#"{"retention": {"days": "90 d"}}"#, "invalid type"),
        (r#"{"keys": {"previous": [""]}}"#, "`keys.previous` is empty"),
        (r#"{"kubernetes": {"image": " "}}"#, "`kubernetes.image`"),
        (r#"{"kubernetes": {"url": "http://z:7443"}}"#, "`kubernetes.url`"),
        (r#"{"kubernetes": {"devices": "disk"}}"#, "`kubernetes.devices`"),
        (r#"{"kubernetes": {"memory_mib": 64}}"#, "`kubernetes.memory_mib`"),
        (r#"{"kubernetes": {"run_within": 59}}"#, "`kubernetes.run_within`"),
        (r#"{"kubernetes": {"jobs": 1}}"#, "unknown field"),
        (r#"{"process": {"agent": ""}}"#, "`process.agent`"),
        (r#"{"process": {"trust": [""]}}"#, "`process.trust`"),
        (r#"{"process": {"args": ["\u0000"]}}"#, "`process.args`"),
        (r#"{"prozess": {}}"#, "unknown field `prozess`"),
        (r#"{"listen": ["127.0.0.1:1"], "listen": []}"#, "duplicate field `listen`"),
    ];
    for (text, said) in cases {
        let error = Config::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(said), "{text}: {error}");
    }
    let error = Config::parse(br#"{"lease": {"seconds": 4}}"#).unwrap_err();
    assert_eq!(error.hint(), Some("give `lease.seconds` a value from 5 to 3600"));
}

#[test]
fn a_fabric_without_a_limit_of_its_own_has_that_of_all() {
    let limits = |text: &str| Config::parse(text.as_bytes()).unwrap().schedule_limits();
    let named = limits(r#"{"limits": {"per_fabric": {"*": 4, "slow": 1}}}"#);
    assert_eq!((named.per_fabric, named.fabrics.values().copied().collect::<Vec<_>>()), (4, vec![1]));
    assert_eq!(named.fabrics.keys().map(protocol::Label::as_str).collect::<Vec<_>>(), ["slow"]);
    let usual = limits(r#"{"limits": {"per_fabric": {"slow": 1}}}"#);
    assert_eq!((usual.per_fabric, usual.runs, usual.per_source), (32, 64, 32));
}

#[test]
fn a_database_is_named_in_the_configuration_or_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, "postgres://z:hushhush@db/runs\n").unwrap();
    let config = Config { store_file: Some(file.clone()), ..Config::default() };
    config.check().unwrap();
    let place = config.location(Path::new("/d")).unwrap();
    assert_eq!(place, Location::parse("postgres://z:hushhush@db/runs").unwrap());
    assert!(!format!("{place:?} {place}").contains("hushhush"));
    std::fs::write(&file, "hushhush").unwrap();
    let error = config.location(Path::new("/d")).unwrap_err();
    assert!(error.to_string().contains("store_file") && !error.lines().contains("hushhush"), "{error}");
    let config = Config::parse(br#"{"store": "postgres://z:hushhush@db/runs"}"#).unwrap();
    assert!(!format!("{config:?}").contains("hushhush"));
}

#[test]
fn a_file_is_read_with_its_name_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    assert!(Config::load(&file).unwrap_err().to_string().contains("config.json"));
    std::fs::write(&file, r#"{"lease": {"seconds": 1}}"#).unwrap();
    let error = Config::load(&file).unwrap_err();
    assert!(error.to_string().contains("config.json: `lease.seconds`") && error.hint().is_some(), "{error}");
    std::fs::write(&file, " ".repeat(MAX_CONFIG + 1)).unwrap();
    assert!(Config::load(&file).unwrap_err().to_string().contains("more than"));
    std::fs::write(&file, r#"{"listen": ["0.0.0.0:7443"]}"#).unwrap();
    assert_eq!(Config::load(&file).unwrap().listen[0].port(), 7443);
}

#[test]
fn runs_are_kept_for_ninety_days_unless_it_is_said_otherwise() {
    let days =
        |text: &str| Config::parse(text.as_bytes()).unwrap().retention.time().map(|time| time.as_secs() / 86_400);
    assert_eq!(days("{}"), Some(90));
    assert_eq!(days(r#"{"retention": {"days": 7}}"#), Some(7));
    assert_eq!(days(r#"{"retention": {"days": null}}"#), None);
}
