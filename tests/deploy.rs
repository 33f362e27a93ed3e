//! Holds the manifests for Kubernetes together: what one names, another has, and the settings
//! of the pods are ones that a server takes.

use std::collections::BTreeMap;

use serde_json::Value;
use systole::config::{Settings, Sources};
use systole::http::OPENAPI;

/// The values of a manifest by their path, such as `spec.ports.0.name`.
type Fields = BTreeMap<String, String>;

fn text(name: &str) -> String {
    let path = format!("{}/deploy/kubernetes/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Reads as much of YAML as the manifests use: maps and lists by indentation, values on one
/// line, and blocks of text, which are passed over.
fn fields(manifest: &str) -> Fields {
    let mut fields = Fields::new();
    // The indentation of what is open, its key, and how many entries it has had if it is a list.
    let mut open: Vec<(usize, String, usize)> = Vec::new();
    let mut block = None;
    for line in manifest.lines() {
        let mut rest = line.trim_start();
        let mut indent = line.len() - rest.len();
        if rest.is_empty() || rest.starts_with('#') || block.is_some_and(|at| indent > at) {
            continue;
        }
        block = None;
        while let Some(item) = rest.strip_prefix("- ") {
            while open.last().is_some_and(|(at, ..)| *at > indent) {
                open.pop();
            }
            match open.last_mut() {
                Some((at, key, count)) if *at == indent && key.parse::<usize>().is_ok() => {
                    *count += 1;
                    *key = count.to_string();
                }
                _ => open.push((indent, "0".to_owned(), 0)),
            }
            (rest, indent) = (item.trim_start(), indent + 2);
        }
        while open.last().is_some_and(|(at, ..)| *at >= indent) {
            open.pop();
        }
        if rest == "|" {
            block = Some(indent - 2);
            continue;
        }
        let path = |key: &str| {
            let keys = open.iter().map(|(_, key, _)| &**key).chain([key]);
            keys.filter(|key| !key.is_empty())
                .collect::<Vec<_>>()
                .join(".")
        };
        let Some((key, value)) = rest.split_once(':') else {
            fields.insert(path(""), rest.to_owned());
            continue;
        };
        let value = value.trim().trim_matches('"');
        assert!(
            fields.insert(path(key), value.to_owned()).is_none(),
            "{line:?} stands twice"
        );
        open.push((indent, key.to_owned(), 0));
    }
    fields
}

fn servers() -> Fields {
    fields(&text("statefulset.yaml"))
}

/// What lies below `prefix`.
fn below<'a>(fields: &'a Fields, prefix: &str) -> BTreeMap<&'a str, &'a str> {
    let all = fields.iter();
    all.filter_map(|(path, value)| Some((path.strip_prefix(prefix)?.strip_prefix('.')?, &**value)))
        .collect()
}

/// The entries of a list of `name` and something else.
fn named<'a>(fields: &'a Fields, list: &str, what: &str) -> BTreeMap<&'a str, &'a str> {
    (0..)
        .map_while(|at| {
            let name = fields.get(&format!("{list}.{at}.name"))?;
            let value = fields.get(&format!("{list}.{at}.{what}"));
            Some((&**name, value.map_or("", |value| &**value)))
        })
        .collect()
}

const CONTAINER: &str = "spec.template.spec.containers.0";

#[test]
fn whatever_selects_pods_selects_those_of_the_servers() {
    let servers = servers();
    let labels = below(&servers, "spec.template.metadata.labels");
    assert_eq!(labels.len(), 1);
    assert_eq!(below(&servers, "spec.selector.matchLabels"), labels);
    let disruption = fields(&text("disruption.yaml"));
    assert_eq!(below(&disruption, "spec.selector.matchLabels"), labels);
    assert_eq!(disruption["spec.maxUnavailable"], "1");
    for rule in [
        "spec.template.spec.affinity.podAntiAffinity\
         .requiredDuringSchedulingIgnoredDuringExecution.0.labelSelector.matchLabels",
        "spec.template.spec.topologySpreadConstraints.0.labelSelector.matchLabels",
    ] {
        assert_eq!(below(&servers, rule), labels, "{rule}");
    }
    for service in text("services.yaml").split("\n---\n") {
        assert_eq!(below(&fields(service), "spec.selector"), labels);
    }
}

#[test]
fn every_port_that_is_named_is_one_that_the_server_listens_on() {
    let servers = servers();
    let ports = named(&servers, &format!("{CONTAINER}.ports"), "containerPort");
    let env = named(&servers, &format!("{CONTAINER}.env"), "value");
    assert_eq!(env["SYSTOLE_LISTEN"], format!("0.0.0.0:{}", ports["http"]));
    assert_eq!(
        env["SYSTOLE_PEER_LISTEN"],
        format!("0.0.0.0:{}", ports["peers"])
    );
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(
            servers[&format!("{CONTAINER}.{probe}.httpGet.port")],
            "http"
        );
    }
    let notes = below(&servers, "spec.template.metadata.annotations");
    assert_eq!(notes["prometheus.io/port"], ports["http"]);
    let document: Value = serde_json::from_slice(OPENAPI).expect("JSON");
    assert!(document["paths"][notes["prometheus.io/path"]]["get"].is_object());
    for service in text("services.yaml").split("\n---\n") {
        let service = fields(service);
        let of_service = named(&service, "spec.ports", "port");
        assert!(!of_service.is_empty());
        for (name, port) in of_service {
            assert_eq!(ports.get(name), Some(&port), "{name}");
        }
        let target = named(&service, "spec.ports", "targetPort");
        assert!(
            target
                .values()
                .all(|name| name.is_empty() || ports.contains_key(name))
        );
    }
}

#[test]
fn the_ensemble_is_the_pods_by_the_names_that_the_headless_service_gives_them() {
    let servers = servers();
    let env = named(&servers, &format!("{CONTAINER}.env"), "value");
    let (set, service) = (&servers["metadata.name"], &servers["spec.serviceName"]);
    let services = text("services.yaml");
    let headless = services.split("\n---\n").map(fields);
    let headless: Vec<Fields> = headless
        .filter(|fields| fields["metadata.name"] == *service)
        .collect();
    assert_eq!(headless.len(), 1);
    assert_eq!(headless[0]["spec.clusterIP"], "None");
    assert_eq!(headless[0]["spec.publishNotReadyAddresses"], "true");
    let replicas: u32 = servers["spec.replicas"].parse().expect("a number");
    let pods: Vec<String> = (0..replicas)
        .map(|pod| format!("{}={set}-{pod}.{service}:8641", pod + 1))
        .collect();
    assert_eq!(env["SYSTOLE_ENSEMBLE"], pods.join(","));
}

#[test]
fn the_data_lie_on_a_volume_that_each_pod_has_of_its_own() {
    let servers = servers();
    let mounts = named(&servers, &format!("{CONTAINER}.volumeMounts"), "mountPath");
    let env = named(&servers, &format!("{CONTAINER}.env"), "value");
    let claim = &servers["spec.volumeClaimTemplates.0.metadata.name"];
    assert!(env["SYSTOLE_DATA_DIR"].starts_with(&format!("{}/", mounts[&**claim])));
    let user = &servers["spec.template.spec.securityContext.runAsUser"];
    assert!(text("Dockerfile").contains(&format!("\nUSER {user}:{user}\n")));
}

#[test]
fn the_settings_of_every_pod_are_taken_as_they_stand() {
    let servers = servers();
    let env = named(&servers, &format!("{CONTAINER}.env"), "value");
    for id in 1..=3 {
        // What the pod's script makes of its host name; see tests/operations.rs.
        let number = id.to_string();
        let advertise = format!("systole-{}.systole.default.svc:8640", id - 1);
        let find = |name: &str| match name {
            "SYSTOLE_ID" => Some(number.clone()),
            "SYSTOLE_ADVERTISE" => Some(advertise.clone()),
            name => env.get(name).map(|value| (*value).to_owned()),
        };
        let sources = Sources {
            flags: &|_| None,
            env: &find,
            file: None,
        };
        let settings = Settings::from_sources(&sources).expect("settings that are right");
        assert_eq!(settings.ensemble.len(), 3);
        assert!(!settings.is_alone());
        assert_eq!(settings.warnings(), Vec::<String>::new());
    }
}
