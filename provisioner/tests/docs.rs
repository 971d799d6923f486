//! The examples in `docs/operating.md`, of a run spec and of a boot medium's configuration, are read by the code they document.

#![allow(clippy::unwrap_used)]

use protocol::RunSpec;
use protocol::spec::Options;
use provisioner::medium::Config;
use provisioner::medium::config::{
    Anchors, Auth, Clear, Console, Device, Interface, Ipsec, Ipv4, Ipv6, Network, OnFailure, Orchestrator, Report,
    Route, Tunnel,
};

const OPERATING: &str = include_str!("../../docs/operating.md");

/// The JSON examples of a text, in their order.
fn examples(text: &str) -> Vec<&str> {
    text.split("```json\n").skip(1).map(|rest| rest.split_once("\n```").unwrap().0).collect()
}

fn example() -> &'static str {
    examples(OPERATING)[0]
}

/// The chapter on the boot medium.
fn medium() -> &'static str {
    let (_, rest) = OPERATING.split_once("\n## The boot medium\n").unwrap();
    rest.split_once("\n## ").unwrap().0
}

#[test]
fn the_example_is_a_run_spec() {
    let spec = RunSpec::parse(example().as_bytes()).unwrap();
    for source in &spec.image.sources {
        source.parse::<imgstream::source::Locator>().unwrap();
    }
    spec.image.digest.unwrap().as_str().parse::<imgstream::digest::Digest>().unwrap();
    spec.options.engine.name().parse::<imgstream::sink::EngineChoice>().unwrap();
}

/// The names of all keys, with those of the objects they are in.
fn paths(value: &serde_json::Value, name: &str) -> Vec<String> {
    let own = Some(name.to_owned()).filter(|name| name.contains('.') || !value.is_object());
    let below: Vec<String> = match value {
        serde_json::Value::Object(object) => object
            .iter()
            .flat_map(|(key, value)| paths(value, format!("{name}.{key}").trim_start_matches('.')))
            .collect(),
        serde_json::Value::Array(list) => list.iter().flat_map(|value| paths(value, name)).collect(),
        _ => Vec::new(),
    };
    own.into_iter().chain(below).collect()
}

/// The example shows every key there is, and the table explains each.
#[test]
fn every_key_is_shown_and_explained() {
    let shown: serde_json::Value = serde_json::from_str(example()).unwrap();
    let read = serde_json::to_value(RunSpec::parse(example().as_bytes()).unwrap()).unwrap();
    assert_eq!(shown, read, "a key has a default and is not in the example");
    let all =
        Options { connections: Some(1), request_size: Some(1 << 20), stall_limit: Some(300), ..Options::default() };
    let all = serde_json::to_value(all).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&shown["options"]), keys(&all));
    for key in paths(&shown, "") {
        assert!(OPERATING.contains(&format!("`{key}`")), "{key} is not explained");
    }
    assert!(OPERATING.contains("| `run` |"));
}

/// Names every key of the types, so that a new one does not compile before it is shown and explained.
#[test]
fn every_key_of_the_mediums_configuration_is_shown_and_explained() {
    let mut shown: serde_json::Value = serde_json::from_str(examples(medium())[0]).unwrap();
    let config: Config = serde_json::from_value(shown.clone()).unwrap();
    config.check().unwrap();
    let mut read = serde_json::to_value(&config).unwrap();
    for value in [&mut shown, &mut read] {
        value["run"] = "has a table of its own".into();
    }
    assert_eq!(shown, read, "a key has a default and is not in the example");

    let Config {
        made: _,
        server: _,
        console: _,
        max_age_days: _,
        trust,
        network,
        ipsec,
        run,
        orchestrator,
        luks_key,
        ca,
        registry_auth,
        report,
        on_failure: _,
        rescue_shell: _,
    } = &config;
    assert!(run.is_some() && orchestrator.is_none(), "the other one has an example of its own");
    assert!(luks_key.is_some() && ca.is_some() && registry_auth.is_some());
    let Anchors { images: _, tickets, orchestrator_ca } = trust;
    assert!(!tickets.is_empty() && orchestrator_ca.is_some());
    let Report { url: _, within: _ } = report.as_ref().unwrap();
    let Network { interfaces, dns, wait: _ } = network;
    assert!(!dns.is_empty());
    let Interface { name: _, device: _, mtu, vlan, ipv4, ipv6, routes } = &interfaces[0];
    assert!(mtu.is_some() && vlan.is_some());
    assert!(matches!(ipv4, Ipv4::Static { addresses: _, gateway: Some(_) }));
    assert!(matches!(ipv6, Ipv6::Static { addresses: _, gateway: Some(_) }));
    let Route { to: _, via } = &routes[0];
    assert!(via.is_some());
    let Ipsec { gateway: _, local_id, gateway_id: _, auth, tunnels, clear, dead_peer: _, wait: _ } =
        ipsec.as_ref().unwrap();
    let Tunnel { local, remote: _ } = &tunnels[0];
    assert!(local_id.is_some() && local.is_some() && !clear.is_empty());
    let Auth::Certificate { certificate: _, key: _, ca: _, crl } = auth else { panic!("certificates are shown") };
    assert!(!crl.is_empty());

    for key in paths(&shown, "") {
        assert!(medium().contains(&format!("`{key}`")), "{key} is not explained");
    }
}

#[test]
fn every_key_of_a_service_is_shown_and_explained() {
    let shown: serde_json::Value = serde_json::from_str(examples(medium())[1]).unwrap();
    let config: Config = serde_json::from_value(with_date(&shown)).unwrap();
    config.check().unwrap();
    let Orchestrator { url: _, token: _, run, ipsec: _, enrol_within: _, report_within: _ } =
        config.orchestrator.as_ref().unwrap();
    assert!(run.is_some());
    assert_eq!(shown["orchestrator"], serde_json::to_value(&config.orchestrator).unwrap());
    for key in paths(&shown["orchestrator"], "orchestrator") {
        assert!(medium().contains(&format!("`{key}`")), "{key} is not explained");
    }
}

/// As `z-provisioner config` adds it.
fn with_date(shown: &serde_json::Value) -> serde_json::Value {
    let mut dated = shown.clone();
    dated["made"] = "2026-11-25T20:00:00Z".into();
    dated
}

/// Each choice there is stands in the chapter. A new one does not compile before it is added here.
#[test]
fn every_choice_of_the_mediums_configuration_is_explained() {
    let device = |device: Device| match device {
        Device::Qeth { .. } => "network.interfaces.device.qeth.channels",
        Device::Mac(_) => "network.interfaces.device.mac",
        Device::Ccw(_) => "network.interfaces.device.ccw",
    };
    let auth = |auth: Auth| match auth {
        Auth::Psk(_) => "ipsec.auth.psk",
        Auth::Certificate { .. } => "ipsec.auth.certificate.certificate",
    };
    let ipv4 = |ipv4: Ipv4| match ipv4 {
        Ipv4::Off => "off",
        Ipv4::Dhcp => "dhcp",
        Ipv4::Static { .. } => "static",
    };
    let ipv6 = |ipv6: Ipv6| match ipv6 {
        Ipv6::Off => "off",
        Ipv6::Auto => "auto",
        Ipv6::Static { .. } => "static",
    };
    let console = |console: Console| match console {
        Console::Auto => "auto",
        Console::Lines => "lines",
        Console::Bars => "bars",
    };
    let on_failure = |on_failure: OnFailure| match on_failure {
        OnFailure::Wait => "wait",
        OnFailure::Halt => "halt",
    };
    let clear = |clear: Clear| match clear {
        Clear::Dhcp => "dhcp",
        Clear::Dns => "dns",
        Clear::NeighbourDiscovery => "neighbour-discovery",
    };
    let mut words = vec![
        device(Device::Qeth { channels: ["", "", ""].map(String::from), port: 0 }),
        device(Device::Mac(String::new())),
        device(Device::Ccw(String::new())),
        auth(Auth::Psk("".into())),
        auth(Auth::Certificate { certificate: "".into(), key: "".into(), ca: Vec::new(), crl: Vec::new() }),
    ];
    words.extend([Ipv4::Off, Ipv4::Dhcp, Ipv4::Static { addresses: Vec::new(), gateway: None }].map(ipv4));
    words.extend([Ipv6::Off, Ipv6::Auto, Ipv6::Static { addresses: Vec::new(), gateway: None }].map(ipv6));
    words.extend([Console::Auto, Console::Lines, Console::Bars].map(console));
    words.extend([OnFailure::Wait, OnFailure::Halt].map(on_failure));
    words.extend([Clear::Dhcp, Clear::Dns, Clear::NeighbourDiscovery].map(clear));
    for word in words {
        assert!(medium().contains(&format!("`{word}`")), "{word} is not explained");
    }
}

#[test]
fn the_configuration_for_qemu_is_one() {
    let shown: serde_json::Value = serde_json::from_str(examples(medium())[2]).unwrap();
    serde_json::from_value::<Config>(with_date(&shown)).unwrap().check().unwrap();
}

#[test]
fn every_exit_code_has_a_chapter() {
    for code in [0, 2, 3, 4, 5, 6, 7, 8] {
        assert!(OPERATING.contains(&format!("\n### {code}: ")), "exit code {code}");
    }
}
