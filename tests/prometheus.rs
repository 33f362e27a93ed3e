//! Holds the metrics to their table in docs/metrics.md, the dashboard and the alerts to the
//! metrics, and the discovery to Debian's Prometheus.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Server, Setup, poll, skipped};
use serde_json::{Value, json};

fn text(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What a server with a member shows.
fn metrics() -> (Server, String) {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ask("PUT", "/g/m").expect(201);
    client.ask("HEAD", "/g/m").expect(204);
    let answer = client.ask("GET", "/-/metrics").expect(200);
    let body = String::from_utf8(answer.body).expect("UTF-8");
    (server, body)
}

/// Type and labels of each metric in the text.
fn shown(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').expect("a type");
            found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let name = line.split([' ', '{']).next().expect("a name");
            let stem = name.trim_end_matches("_sum").trim_end_matches("_count");
            let (_, labels) = found.get_mut(stem).expect("a type stands before a value");
            if let Some((inside, _)) = line.split_once('{').and_then(|(_, l)| l.split_once('}')) {
                let names = inside.split(',').filter_map(|label| label.split_once('='));
                labels.extend(names.map(|(name, _)| name.to_owned()));
            }
        }
    }
    found
}

/// The rows of the table: name, type, labels.
fn rows(document: &str) -> Vec<Vec<String>> {
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| `systole_"));
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    };
    rows.map(cells).collect()
}

#[test]
fn every_metric_has_its_row_and_every_row_its_metric() {
    let (_server, text_shown) = metrics();
    let shown = shown(&text_shown);
    let document = text("docs/metrics.md");
    let mut documented = BTreeSet::new();
    for row in rows(&document) {
        let [name, kind, labels, unit, meaning, _worry] = &row[..] else {
            panic!("six cells: {row:?}");
        };
        let (kind_shown, labels_shown) = shown
            .get(name)
            .unwrap_or_else(|| panic!("{name} is documented, and not shown"));
        assert_eq!(kind, kind_shown, "{name}");
        let labels: BTreeSet<String> = labels.split_whitespace().map(str::to_owned).collect();
        assert_eq!(&labels, labels_shown, "{name}");
        assert!(!unit.is_empty() && !meaning.is_empty(), "{name}");
        let in_seconds = name.trim_end_matches("_total").ends_with("_seconds");
        assert_eq!(in_seconds, unit == "seconds", "{name} is in {unit}");
        assert!(documented.insert(name.clone()), "{name} is there twice");
    }
    for name in shown.keys() {
        assert!(
            documented.contains(name),
            "{name} has no row in docs/metrics.md"
        );
    }
}

/// The names of metrics in an expression.
fn names_in(expression: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !word(c));
    words
        .filter(|word| word.starts_with("systole_"))
        .map(str::to_owned)
        .collect()
}

/// Every string under one of `keys`, wherever it stands.
fn strings_under(value: &Value, keys: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(text) if keys.contains(&key.as_str()) => {
                        found.push(text.clone());
                    }
                    _ => strings_under(member, keys, found),
                }
            }
        }
        Value::Array(elements) => {
            for element in elements {
                strings_under(element, keys, found);
            }
        }
        _ => {}
    }
}

/// The expressions of the dashboard's panels, with Grafana's variables filled in.
fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_str(&text("deploy/grafana/systole.json")).expect("the dashboard is JSON");
    let mut expressions = Vec::new();
    strings_under(&dashboard["panels"], &["expr"], &mut expressions);
    let filled = |expression: &String| {
        let filled = expression.replace("$__rate_interval", "1m");
        filled.replace("$instance", ".*")
    };
    expressions.iter().map(filled).collect()
}

/// The expressions of the alerts.
fn alert_expressions() -> Vec<String> {
    let alerts = text("deploy/prometheus/alerts.yml");
    let lines = alerts.lines().filter_map(|line| {
        let line = line.trim();
        line.strip_prefix("expr: ").map(str::to_owned)
    });
    lines.collect()
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let (_server, text_shown) = metrics();
    let shown = shown(&text_shown);
    let dashboard = dashboard_expressions();
    let alerts = alert_expressions();
    assert!(dashboard.len() > 20 && alerts.len() > 5);
    for expression in dashboard.iter().chain(&alerts) {
        let names = names_in(expression);
        let of_prometheus = expression.starts_with("up{");
        assert_eq!(names.is_empty(), of_prometheus, "{expression}");
        for name in names {
            let (kind, labels) = shown
                .get(&name)
                .unwrap_or_else(|| panic!("there is no {name}: {expression}"));
            // A counter says nothing by itself, and a gauge has no rate.
            let rated = expression.contains(&format!("rate({name}"))
                || expression.contains(&format!("increase({name}"));
            assert_eq!(rated, kind == "counter", "{expression}");
            let by_shard = expression.contains("shard)") || expression.contains("{{shard}}");
            assert!(!by_shard || labels.contains("shard"), "{expression}");
        }
    }
}

fn is_there(program: &str) -> bool {
    let run = Command::new(program).arg("--version").output();
    run.is_ok_and(|run| run.status.success())
}

/// Runs promtool with `input`, and fails with what it says unless it is content.
#[track_caller]
fn promtool(args: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool to run");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("to write");
    drop(stdin);
    let ended = child.wait_with_output().expect("promtool to end");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(ended.status.success(), "promtool {args:?}: {said}");
}

#[test]
fn promtool_finds_no_fault_with_metrics_dashboard_and_alerts() {
    if !is_there("promtool") {
        return skipped("there is no promtool here: apt-get install prometheus");
    }
    let (_server, shown) = metrics();
    promtool(&["check", "metrics"], &shown);
    let root = env!("CARGO_MANIFEST_DIR");
    for (what, file) in [("config", "prometheus.yml"), ("rules", "alerts.yml")] {
        promtool(
            &["check", what, &format!("{root}/deploy/prometheus/{file}")],
            "",
        );
    }
    // The dashboard's expressions as rules, which promtool can read.
    let rules: Vec<Value> = dashboard_expressions()
        .iter()
        .enumerate()
        .map(|(n, expr)| json!({"record": format!("r{n}"), "expr": expr}))
        .collect();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rules.json");
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).expect("to write");
    promtool(&["check", "rules", file.to_str().expect("UTF-8")], "");
}

/// Prometheus as a child process, killed when dropped.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    /// Starts it with `jobs`, and one that scrapes itself.
    fn start(dir: &Path, mut jobs: Vec<Value>) -> Prometheus {
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a port").port();
        let itself = json!([{"targets": [format!("127.0.0.1:{port}")]}]);
        jobs.push(json!({"job_name": "itself", "static_configs": itself}));
        let config = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs});
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config.to_string()).expect("to write");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus to run");
        Prometheus { child, port }
    }

    /// What one of its pages says, if it answers.
    fn ask(&self, target: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}{target}", self.port);
        let mut answer = ureq::get(url).call().ok()?;
        answer.body_mut().read_json().ok()
    }

    /// Addresses and labels of the job's targets, by name.
    fn targets(&self, job: &str) -> Vec<(String, BTreeMap<String, String>)> {
        let Some(answer) = self.ask("/api/v1/targets?state=active") else {
            return Vec::new();
        };
        let targets = answer["data"]["activeTargets"].as_array().cloned();
        let mut found = Vec::new();
        for target in targets.unwrap_or_default() {
            let labels: BTreeMap<String, String> =
                serde_json::from_value(target["labels"].clone()).expect("labels");
            if labels["job"] == job {
                found.push((labels["instance"].clone(), labels));
            }
        }
        found.sort();
        found
    }

    /// The value of an expression that has one.
    fn value(&self, expression: &str) -> Option<String> {
        let escaped: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect();
        let answer = self.ask(&format!("/api/v1/query?query={escaped}"))?;
        let value = answer["data"]["result"][0]["value"][1].as_str()?;
        Some(value.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long Prometheus may take for what it does every second.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn prometheus_discovers_the_members_of_a_group_and_scrapes_the_metrics() {
    if !is_there("prometheus") {
        return skipped("there is no prometheus here: apt-get install prometheus");
    }
    let server = Setup::new().flag("--default-timeout", "1h").start();
    let here = server.address();
    let mut client = server.client();
    let config = json!({"address": here.to_string(), "labels": {"zone": "a"}}).to_string();
    client
        .ask_with("PUT", "/database/db1", &[], config.as_bytes())
        .expect(201);
    client.ask("PUT", "/database/db2.invalid").expect(201);
    let discovery = |group: &str| {
        let url = format!("http://{here}/-/sd/prometheus?port=9100&group={group}");
        json!([{"url": url, "refresh_interval": "1s"}])
    };
    let jobs = vec![
        json!({
            "job_name": "members",
            "metrics_path": "/-/metrics",
            "http_sd_configs": discovery("database"),
            "relabel_configs": [
                {"source_labels": ["__meta_systole_group"], "target_label": "group"},
                {"source_labels": ["__meta_systole_member"], "target_label": "member"},
                {"regex": "__meta_systole_label_(.+)", "action": "labelmap"},
            ],
        }),
        json!({"job_name": "nobody", "http_sd_configs": discovery("unknown")}),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let prometheus = Prometheus::start(dir.path(), jobs);
    let targets = poll(PATIENCE, "two targets", || {
        let targets = prometheus.targets("members");
        (targets.len() == 2).then_some(targets)
    });
    let (first, second) = (&targets[0], &targets[1]);
    assert_eq!(first.0, here.to_string());
    assert_eq!(first.1["group"], "database");
    assert_eq!((&first.1["member"][..], &first.1["zone"][..]), ("db1", "a"));
    assert_eq!(second.0, "db2.invalid:9100");
    let active = poll(PATIENCE, "a scrape", || {
        prometheus.value("systole_members_active{member=\"db1\"}")
    });
    assert_eq!(active, "2");
    // Who leaves is no target any more, and the last one's leaving is noticed too.
    for (member, left) in [("db2.invalid", 1), ("db1", 0)] {
        client
            .ask("DELETE", &format!("/database/{member}"))
            .expect(204);
        poll(PATIENCE, "a target to go", || {
            (prometheus.targets("members").len() == left).then_some(())
        });
    }
    // A group that nobody knows has no members, and to ask for them is no failure. (Prometheus
    // counts failures, but among them its own when it had no processor for a second.)
    assert_eq!(prometheus.targets("nobody"), []);
    let nobody = client.ask("GET", "/-/sd/prometheus?port=9100&group=unknown");
    assert_eq!(nobody.expect(200).json(), json!([]));
}
