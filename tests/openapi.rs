//! Holds the OpenAPI document to the program: every route, method, parameter and code is in
//! it, and nothing that the program does not have. What a server really answers is held to
//! it by `tests/openapi/run.sh`.

mod common;

use std::collections::BTreeSet;

use common::Setup;
use serde_json::{Map, Value};
use systole::http::{Code, Limits, OPENAPI, Problem, Progress, Request, Route, Scratch, UiFile};
use systole::http::{parse, route};

fn document() -> Value {
    serde_json::from_slice(OPENAPI).expect("the document is JSON")
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

/// Every operation of the document: method in capitals, path, and the operation.
fn operations(document: &Value) -> Vec<(String, &str, &Value)> {
    let mut found = Vec::new();
    for (path, item) in object(&document["paths"]) {
        for (method, operation) in object(item) {
            if METHODS.contains(&method.to_ascii_uppercase().as_str()) {
                found.push((method.to_ascii_uppercase(), path.as_str(), operation));
            }
        }
    }
    found
}

const METHODS: &[&str] = &[
    "GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE",
];

/// The value that a reference leads to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("a reference within");
            let found = document.pointer(pointer);
            found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => value,
    }
}

/// Names the operation of each route. A route that is added does not compile without a line
/// here, and a line that no operation of the document has fails a test.
macro_rules! routes {
    ($($pattern:pat => $name:literal),* $(,)?) => {
        fn operation_of(route: &Route<'_>) -> &'static str {
            match route { $($pattern => $name,)* }
        }
        const ROUTES: &[&str] = &[$($name),*];
    };
}

routes! {
    Route::Beat { .. } => "beat",
    Route::BeatAndGet { .. } => "beatAndGet",
    Route::Join { .. } => "join",
    Route::Leave { .. } => "leave",
    // A GET of a group too: what it accepts makes the difference.
    Route::GetGroup { .. } | Route::Watch { .. } => "getGroup",
    Route::DeleteGroup { .. } => "deleteGroup",
    Route::ListGroups { .. } => "listGroups",
    Route::GetConfig { member: None, .. } => "getGroupConfig",
    Route::GetConfig { .. } => "getMemberConfig",
    Route::PutConfig { member: None, .. } => "putGroupConfig",
    Route::PutConfig { .. } => "putMemberConfig",
    Route::DeleteConfig { member: None, .. } => "deleteGroupConfig",
    Route::DeleteConfig { .. } => "deleteMemberConfig",
    Route::BatchBeats { .. } => "batchBeats",
    Route::Livez => "livez",
    Route::Readyz => "readyz",
    Route::Metrics => "metrics",
    Route::Histograms => "histograms",
    Route::Cluster => "cluster",
    Route::OpenApi => "openApi",
    Route::Targets { .. } => "prometheusTargets",
    Route::Ui { file: UiFile::Page, .. } => "ui",
    Route::Ui { file: UiFile::Style, .. } => "uiStyle",
    Route::Ui { file: UiFile::Script, .. } => "uiScript",
    Route::Ui { file: UiFile::Icon, .. } => "uiIcon",
}

const LIMITS: Limits = Limits {
    head_bytes_max: 16 * 1024,
    target_bytes_max: 4 * 1024,
    headers_max: 64,
    body_bytes_max: 1024 * 1024,
};

/// What the program makes of a request.
fn routed<T>(
    method: &str,
    target: &str,
    headers: &str,
    see: impl FnOnce(Result<Route<'_>, Problem>) -> T,
) -> T {
    let bytes = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let mut progress = Progress::default();
    let request: Request<'_> = parse(bytes.as_bytes(), &mut progress, &LIMITS)
        .unwrap_or_else(|problem| panic!("{bytes}: {problem:?}"))
        .expect("a whole head");
    see(route(&request, &mut Scratch::new()))
}

/// A target for `path` with what it cannot do without.
fn example(path: &str) -> String {
    let target = path.replace("{group}", "g").replace("{member}", "m");
    let query = if path == "/-/sd/prometheus" {
        "?group=g"
    } else {
        ""
    };
    target + query
}

#[test]
fn every_route_has_its_operation_and_every_operation_its_route() {
    let document = document();
    let mut named = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().expect("an operationId");
        assert!(named.insert(id), "{id} is there twice");
        // A HEAD of what is no member is the GET without its body.
        let expected = match method.as_str() {
            "HEAD" if id != "beat" => {
                let get = &document["paths"][path]["get"]["operationId"];
                get.as_str().expect("a GET for the HEAD")
            }
            _ => id,
        };
        let found = routed(&method, &example(path), "", |route| {
            operation_of(&route.unwrap_or_else(|p| panic!("{method} {path}: {p:?}")))
        });
        assert_eq!(found, expected, "{method} {path}");
    }
    for name in ROUTES {
        assert!(named.contains(name), "{name} is not in the document");
    }
}

#[test]
fn a_group_is_documented_as_an_event_stream_too() {
    let document = document();
    let get = &document["paths"]["/{group}"]["get"];
    let accept = "Accept: text/event-stream\r\n";
    let watched = routed("GET", "/g", accept, |route| {
        matches!(route, Ok(Route::Watch { .. }))
    });
    assert!(watched && get["responses"]["200"]["content"]["text/event-stream"].is_object());
}

#[test]
fn methods_that_are_not_documented_are_refused_and_allow_lists_those_that_are() {
    let document = document();
    for (path, item) in object(&document["paths"]) {
        let documented: BTreeSet<String> = object(item)
            .keys()
            .map(|method| method.to_ascii_uppercase())
            .filter(|method| METHODS.contains(&method.as_str()))
            .collect();
        for method in METHODS {
            let allowed = routed(method, &example(path), "", |route| match route {
                Err(problem) if problem.code == Code::MethodNotAllowed => problem.allow,
                _ => None,
            });
            assert_eq!(
                allowed.is_none(),
                documented.contains(*method),
                "{method} {path}"
            );
            if let Some(allow) = allowed {
                let allow: BTreeSet<String> = allow.split(", ").map(str::to_owned).collect();
                assert_eq!(allow, documented, "{path}");
            }
        }
    }
}

#[test]
fn the_query_parameters_are_those_that_the_routes_take() {
    let document = document();
    let all = [
        ("timeout", "20"),
        ("takeover", "true"),
        ("after", "a"),
        ("limit", "1"),
        ("version", "1"),
        ("wait", "1s"),
        ("consistent", "true"),
        ("group", "g"),
        ("port", "1"),
    ];
    for (method, path, operation) in operations(&document) {
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none);
        let documented: BTreeSet<&str> = parameters
            .iter()
            .map(|parameter| resolved(&document, parameter))
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().expect("a name"))
            .collect();
        let target = example(path);
        for (name, value) in all {
            let target = match target.split_once('?') {
                // Its own is there once already.
                Some((path, _)) if name == "group" => format!("{path}?group={value}"),
                Some(_) => format!("{target}&{name}={value}"),
                None => format!("{target}?{name}={value}"),
            };
            let unknown = routed(&method, &target, "", |route| {
                route.is_err_and(|problem| problem.code == Code::UnknownParameter)
            });
            assert_eq!(!unknown, documented.contains(name), "{method} {target}");
        }
    }
}

#[test]
fn every_code_stands_under_its_status_and_no_other_does() {
    let document = document();
    let listed = document["components"]["schemas"]["Code"]["enum"]
        .as_array()
        .expect("a list of codes");
    let listed: BTreeSet<&str> = listed.iter().filter_map(Value::as_str).collect();
    let known: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(listed, known);
    for code in Code::ALL {
        let status = code.status();
        let with_status = object(&document["components"]["responses"])
            .values()
            .find(|response| {
                response["content"]["application/problem+json"]["example"]["status"] == status
            });
        let response = with_status.unwrap_or_else(|| panic!("nothing about {status}"));
        let row = format!("- `{}`: {}", code.name(), code.title());
        let told = response["description"].as_str().expect("a description");
        assert!(
            told.lines().any(|line| line == row),
            "{row} is not under {status}"
        );
    }
}

#[test]
fn every_operation_tells_of_the_refusals_that_any_request_may_meet() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let responses = object(&operation["responses"]);
        for status in [400, 405, 408, 413, 414, 417, 431, 500, 501, 503, 505] {
            let told = responses.contains_key(&status.to_string());
            assert!(told, "{method} {path} tells nothing of {status}");
        }
        for (status, response) in responses {
            let response = resolved(&document, response);
            let content = response["content"].as_object();
            let problem = content.is_some_and(|c| c.contains_key("application/problem+json"));
            let refusal = status.as_str() >= "400";
            assert_eq!(
                problem,
                refusal && method != "HEAD",
                "{method} {path} {status}"
            );
            assert!(
                method != "HEAD" || content.is_none(),
                "{path}: HEAD has no body"
            );
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_referred_to() {
    fn walk(value: &Value, seen: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    seen.insert(reference.to_owned());
                }
                members.values().for_each(|member| walk(member, seen));
            }
            Value::Array(elements) => elements.iter().for_each(|element| walk(element, seen)),
            _ => {}
        }
    }
    let document = document();
    let mut seen = BTreeSet::new();
    walk(&document, &mut seen);
    for reference in &seen {
        let pointer = reference.strip_prefix('#').expect("a reference within");
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
    for (kind, components) in object(&document["components"]) {
        for name in object(components).keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(seen.contains(&reference), "nothing refers to {reference}");
        }
    }
}

#[test]
fn the_document_is_served_and_is_of_this_version() {
    let server = Setup::new().start();
    let answer = server.client().ask("GET", "/-/openapi.json").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.body, OPENAPI);
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
}
