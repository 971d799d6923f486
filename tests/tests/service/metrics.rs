//! A real Prometheus, configured as `docs/operating.md` says, scrapes the service.

use std::time::{Duration, Instant};

use e2e::command::Running;
use e2e::server::free_port;
use e2e::{Lab, Run, Service};
use serde_json::{Value, json};

const OPERATING: &str = include_str!("../../../docs/operating.md");

/// The example in the documentation that begins so.
fn example(begins: &str) -> &'static str {
    let mut examples = OPERATING.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    examples.find(|(example, _)| example.starts_with(begins)).expect("an example").0
}

/// A Prometheus that scrapes the service each second.
struct Prometheus {
    url: String,
    _running: Running,
}

impl Prometheus {
    fn of(lab: &Lab, service: &Service) -> Self {
        let data = service.dir();
        let scrape = example("scrape_configs:")
            .replace("/etc/prometheus/z-orchestrator-ca.pem", data.join("ca.pem").to_str().unwrap())
            .replace("/etc/prometheus/z-orchestrator-viewer.token", data.join("viewer.token").to_str().unwrap())
            .replace("orchestrator.example.com:7443", service.url().strip_prefix("https://").unwrap());
        let rules = lab.file("rules.yml", example("groups:").as_bytes());
        let global = format!("global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{rules:?}]\n");
        let config = lab.file("prometheus.yml", format!("{global}{scrape}").as_bytes());
        Run::tool("promtool").words("check config").arg(&config).done().ok();
        let address = format!("127.0.0.1:{}", free_port());
        let running = Run::tool("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", lab.fresh("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .limit(120)
            .start();
        Prometheus { url: format!("http://{address}/api/v1"), _running: running }
    }

    /// What it answers to a question; nothing while it does not answer.
    fn ask(&self, what: &str) -> Option<Value> {
        let text = Run::tool("curl").words("-sS --max-time 5 --get").arg(format!("{}/{what}", self.url)).done();
        serde_json::from_str(&text.stdout).ok()
    }

    /// The value of a query that has one.
    fn value(&self, query: &str) -> Option<f64> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.ask(&format!("query?query={encoded}"))?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// Waits until a query has this value.
    fn until(&self, query: &str, value: f64) {
        let began = Instant::now();
        while self.value(query) != Some(value) {
            let targets = self.ask("targets");
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{query} is {:?}, not {value}: {targets:#?}",
                self.value(query)
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn a_real_prometheus_scrapes_the_metrics_and_its_linter_likes_their_names() {
    let lab = Lab::new();
    let service = Service::new(&lab, json!({}));
    let order = |server: &str| {
        json!({
            "server": server, "launcher": "external",
            "image": {"name": "debian-13", "sources": ["http://127.0.0.1:9/"], "trust": ["a".repeat(64)]},
            "target": {"device": "/dev/vdz"},
        })
    };
    let prometheus = Prometheus::of(&lab, &service);
    prometheus.until("up", 1.0);
    prometheus.until(r#"z_orchestrator_runs{state="launching"}"#, 0.0);
    for server in ["lpar-1", "lpar-2", "lpar-3"] {
        service.create(&lab, &order(server));
    }
    let again = service.create(&lab, &order("lpar-3"));
    prometheus.until(r#"z_orchestrator_runs{state="launching"}"#, 3.0);
    prometheus.until(r#"z_orchestrator_runs_waiting{what="agent"}"#, 3.0);
    prometheus.until(r#"z_orchestrator_runs_waiting{what="server"}"#, 1.0);
    service.client("cancel").arg(&again).done().ok();
    prometheus.until(r#"z_orchestrator_run_states_entered_total{state="cancelled"}"#, 1.0);
    prometheus.until(r#"z_orchestrator_requests_total{route="/v1/runs",method="POST",status="201"}"#, 4.0);
    prometheus.until(r#"count(ALERTS{alertstate="firing"}) or vector(0)"#, 0.0);

    let token = std::fs::read_to_string(service.dir().join("viewer.token")).unwrap();
    let scrape = |header: &[&str]| {
        let curl = Run::tool("curl").words("-sS -w %{http_code} --cacert").arg(service.dir().join("ca.pem"));
        curl.args(header).arg(format!("{}/metrics", service.url())).text()
    };
    assert!(scrape(&[]).ends_with("401"), "strangers get nothing");
    let text = scrape(&["-H", &format!("Authorization: Bearer {}", token.trim())]);
    assert!(!text.contains(token.trim()) && !text.contains("lpar-") && !text.contains(&again), "{text}");
    let lint = Run::tool("sh").args(["-c", "promtool check metrics < \"$0\""]).arg(lab.file(
        "metrics.txt",
        // The linter reads the older format, whose counters have their whole name in each line.
        older(text.strip_suffix("200").unwrap()).as_bytes(),
    ));
    lint.done().ok();
}

/// The same in the older format, for the linter.
fn older(text: &str) -> String {
    let counters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut out = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                out += &format!("# {kind} {name}_total {rest}\n");
            }
            _ => out += &format!("{}\n", line.replace(" info", " gauge").replace("_build ", "_build_info ")),
        }
    }
    out
}
