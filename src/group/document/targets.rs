//! A group as Prometheus wants to be told of it: the JSON of `http_sd`.
//!
//! ```text
//! [{"targets":["db1.example.com:9100"],
//!   "labels":{"__meta_systole_group":"database","__meta_systole_member":"db1.example.com",
//!             "__meta_systole_label_zone":"a"}}]
//! ```
//!
//! without the line breaks. Only active members are shown.

use serde_json::{Map, Value};

use super::{Document, Form, PASSED_OVER_BYTES, Stage};
use crate::group::members::NameBuf;
use crate::group::record::ConfigView;
use crate::json;

impl Document {
    /// The same group as a list of targets for Prometheus, an object for each active member.
    ///
    /// A member's address is the text `address` of its config, if that is a JSON object and
    /// the text could be an address, else the member's name. `port` is added to one that has
    /// none. The texts in `labels` of the config become labels.
    #[must_use]
    pub fn targets(self, port: Option<u16>) -> Document {
        let form = Form::Targets { port };
        Document { form, ..self }
    }

    /// [`Document::render_into`] for this form. A config that is read counts for its bytes,
    /// whatever comes of it, so that the budget bounds the time too.
    pub(super) fn render_targets(
        &mut self,
        port: Option<u16>,
        out: &mut Vec<u8>,
        budget_bytes: usize,
    ) -> bool {
        let start = out.len();
        let mut read_bytes = 0;
        if self.stage == Stage::Head {
            out.push(b'[');
            self.enter(Stage::Active);
        }
        while self.stage == Stage::Active {
            if out.len() - start + read_bytes >= budget_bytes.max(1) {
                return true;
            }
            let Some(entry) = self.group.members.read(&mut self.cursor) else {
                out.push(b']');
                self.stage = Stage::Done;
                break;
            };
            read_bytes += PASSED_OVER_BYTES;
            if !entry.is_active() {
                continue;
            }
            if !std::mem::take(&mut self.first) {
                out.push(b',');
            }
            read_bytes += entry.config().map_or(0, |config| config.bytes.len());
            let mut name = NameBuf::new();
            let name = entry.name.whole(&mut name);
            put_target(&self.group.name, name, entry.config(), port, out);
        }
        false
    }
}

/// Appends one member.
fn put_target(
    group: &[u8],
    member: &[u8],
    config: Option<ConfigView<'_>>,
    port: Option<u16>,
    out: &mut Vec<u8>,
) {
    let config = config.and_then(object).unwrap_or_default();
    let named = config.get("address").and_then(Value::as_str);
    let address = named.filter(|text| could_be_address(text));
    let name = String::from_utf8_lossy(member);
    out.extend_from_slice(b"{\"targets\":[");
    json::string(out, &with_port(address.unwrap_or(&name), port));
    out.extend_from_slice(b"],\"labels\":{\"__meta_systole_group\":");
    json::string_lossy(out, group);
    out.extend_from_slice(b",\"__meta_systole_member\":");
    json::string(out, &name);
    put_labels(&config, out);
    out.extend_from_slice(b"}}");
}

/// Appends the labels of a config, a comma before each.
fn put_labels(config: &Map<String, Value>, out: &mut Vec<u8>) {
    let Some(Value::Object(labels)) = config.get("labels") else {
        return;
    };
    let mut written: Vec<String> = Vec::new();
    for (name, value) in labels {
        let Value::String(value) = value else {
            continue;
        };
        let name = label_name(name);
        // Names that differ only in what a label may not have; the first in order stays.
        if written.contains(&name) || written.len() == LABELS_MAX {
            continue;
        }
        out.extend_from_slice(b",\"__meta_systole_label_");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        json::string(out, value);
        written.push(name);
    }
}

/// The config's members, if it is a JSON object.
fn object(config: ConfigView<'_>) -> Option<Map<String, Value>> {
    if !config.json {
        return None;
    }
    serde_json::from_slice(config.bytes).ok()
}

/// Prometheus takes no address with a slash, and nobody one with blanks.
fn could_be_address(text: &str) -> bool {
    let strange = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    !text.is_empty() && !text.contains(strange)
}

/// `address` with `port`, if it has none. An IPv6 address without brackets has none.
fn with_port(address: &str, port: Option<u16>) -> String {
    let Some(port) = port else {
        return address.to_owned();
    };
    match address.rsplit_once(':') {
        None => format!("{address}:{port}"),
        Some((host, digits)) => {
            let is_port = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let bracketed = host.starts_with('[') && host.ends_with(']');
            if is_port && (bracketed || !host.contains(':')) {
                address.to_owned()
            } else if address.starts_with('[') {
                format!("{address}:{port}")
            } else {
                format!("[{address}]:{port}")
            }
        }
    }
}

/// `name` with what a label's name may not have replaced, as Prometheus itself does it.
fn label_name(name: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars()
        .map(|c| if kept(c) { c } else { '_' })
        .collect()
}

/// Most labels taken from one config. Beyond it they are left out: each is compared with those
/// before it, and Prometheus keeps a copy of them all.
const LABELS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(member: &str, config: Option<&str>, port: Option<u16>) -> Value {
        let config = config.map(|config| ConfigView {
            bytes: config.as_bytes(),
            version: 0,
            json: config.starts_with(['{', '[']),
        });
        let mut out = Vec::new();
        put_target(b"g", member.as_bytes(), config, port, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[track_caller]
    fn assert_address(member: &str, config: Option<&str>, port: Option<u16>, expected: &str) {
        let shown = shown(member, config, port);
        assert_eq!(shown["targets"], serde_json::json!([expected]));
    }

    #[test]
    fn the_address_of_the_config_goes_before_the_name() {
        let config = Some(r#"{"address": "10.0.0.7:9100"}"#);
        assert_address("db1", config, Some(80), "10.0.0.7:9100");
        assert_address("db1", None, None, "db1");
        for useless in [
            r#"{"address": 7}"#,
            r#"{"address": ""}"#,
            r#"{"address": "http://db1/metrics"}"#,
            r#"{"address": "db 1"}"#,
            r#"["address"]"#,
            "address",
        ] {
            assert_address("db1", Some(useless), Some(9100), "db1:9100");
        }
    }

    #[test]
    fn the_port_is_given_to_those_without_one() {
        for (address, expected) in [
            ("db1", "db1:9"),
            ("db1:80", "db1:80"),
            ("10.0.0.7", "10.0.0.7:9"),
            ("::1", "[::1]:9"),
            ("fe80::80", "[fe80::80]:9"),
            ("[::1]", "[::1]:9"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_address(address, None, Some(9), expected);
            let config = format!(r#"{{"address":"{address}"}}"#);
            assert_address("x", Some(&config), Some(9), expected);
            assert_address(address, None, None, address);
        }
    }

    #[test]
    fn texts_in_labels_become_labels_with_names_that_prometheus_takes() {
        let config =
            r#"{"labels": {"zone": "a\"b", "rack-1": "r", "rack.1": "s", "n": 7, "o": {}}}"#;
        let labels = serde_json::json!({
            "__meta_systole_group": "g",
            "__meta_systole_member": "m\"1",
            "__meta_systole_label_zone": "a\"b",
            "__meta_systole_label_rack_1": "r",
        });
        assert_eq!(shown("m\"1", Some(config), None)["labels"], labels);
        let none = shown("m", Some(r#"{"labels": ["a"]}"#), None);
        assert_eq!(none["labels"].as_object().unwrap().len(), 2);
    }

    #[test]
    fn labels_beyond_the_most_are_left_out() {
        let many: Map<String, Value> = (0..LABELS_MAX + 1)
            .map(|n| (format!("l{n}"), Value::from("v")))
            .collect();
        let config = serde_json::json!({ "labels": many }).to_string();
        let shown = shown("m", Some(&config), None);
        assert_eq!(shown["labels"].as_object().unwrap().len(), LABELS_MAX + 2);
    }
}
