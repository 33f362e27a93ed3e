//! The files of the page as they are served, and what they hold.

use std::collections::BTreeMap;
use std::process::Command;

use super::common::{Client, Setup, skipped};
use super::lone::Lone;

const FILES: [(&str, &str, &str); 4] = [
    (
        "/-/ui",
        "text/html; charset=utf-8",
        include_str!("../../src/ui/index.html"),
    ),
    (
        "/-/ui/style.css",
        "text/css; charset=utf-8",
        include_str!("../../src/ui/style.css"),
    ),
    (
        "/-/ui/app.js",
        "text/javascript; charset=utf-8",
        include_str!("../../src/ui/app.js"),
    ),
    (
        "/-/ui/icon.svg",
        "image/svg+xml",
        include_str!("../../src/ui/icon.svg"),
    ),
];

#[test]
fn every_file_is_served_with_its_type_and_a_policy_that_keeps_it_at_home() {
    let server = Setup::new().start();
    let mut client = server.client();
    for (path, kind, text) in FILES {
        let answer = client.ask("GET", path).expect(200);
        assert_eq!(answer.body, text.as_bytes(), "{path}");
        assert_eq!(answer.header("content-type"), Some(kind));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let policy = answer.header("content-security-policy").expect("a policy");
        let parts: Vec<&str> = policy.split("; ").collect();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(parts.contains(&part), "{part} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[test]
fn a_file_that_the_browser_has_is_not_sent_again() {
    let server = Setup::new().start();
    let mut client = server.client();
    let mut etags = Vec::new();
    for (path, ..) in FILES {
        let etag = client.ask("GET", path).expect(200);
        let etag = etag.header("etag").expect("an ETag").to_owned();
        let again = client.ask_with("GET", path, &[("If-None-Match", &etag)], b"");
        let again = again.expect(304);
        assert_eq!(again.header("etag"), Some(&etag[..]));
        assert!(again.header("content-security-policy").is_some());
        let other = [("If-None-Match", "\"1\"")];
        client.ask_with("GET", path, &other, b"").expect(200);
        etags.push(etag);
    }
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), FILES.len(), "each file has an ETag of its own");
}

#[test]
fn the_page_is_served_before_the_server_is_ready() {
    let server = Lone::start();
    let mut client = Client::connect(server.address);
    client
        .ask("GET", "/-/readyz")
        .expect_problem(503, "not_ready");
    for (path, ..) in FILES {
        client.ask("GET", path).expect(200);
    }
}

#[test]
fn a_head_tells_of_a_file_without_sending_it() {
    let server = Setup::new().start();
    let answer = server.client().ask("HEAD", "/-/ui/app.js").expect(200);
    assert!(answer.header("etag").is_some() && answer.body.is_empty());
}

#[test]
fn the_files_are_small_and_hold_nothing_that_the_policy_forbids() {
    let bytes: usize = FILES.iter().map(|(.., text)| text.len()).sum();
    assert!(bytes < 60 * 1024, "{bytes}");
    let forbidden = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "style=",
        "onclick=",
        "javascript:",
        "https:",
        "@import",
    ];
    for (path, _, text) in FILES {
        for word in forbidden {
            assert!(!text.contains(word), "{word} in {path}");
        }
        // The name of SVG is no address that anybody asks.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http:"), "an address in {path}");
    }
}

#[test]
fn the_script_is_one_that_node_can_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ui/app.js");
    match Command::new("node").args(["--check", path]).output() {
        Err(_) => skipped("there is no node here"),
        Ok(output) => assert!(output.status.success(), "{output:?}"),
    }
}

#[test]
fn the_script_asks_only_for_elements_that_the_page_has() {
    let (page, script) = (FILES[0].2, FILES[2].2);
    let asked: Vec<&str> = script.split("$(\"").skip(1).collect();
    assert!(asked.len() > 50, "the script's elements were found");
    for rest in asked {
        let id = rest.split('"').next().expect("a part");
        assert!(page.contains(&format!("id=\"{id}\"")), "no element {id}");
    }
}

/// WCAG 2.2, 1.4.3 (AA): 4.5 for text; 1.4.11: 3 for what is no text.
#[test]
fn text_stands_out_from_its_ground_in_both_themes() {
    let [light, dark] = themes();
    assert!(light.len() > 8 && light.len() == dark.len(), "{light:?}");
    let text = ["text", "muted", "accent", "good", "warn", "bad"];
    let mut pairs: Vec<(&str, &str, f64)> = Vec::new();
    for ground in ["card", "ground"] {
        pairs.extend(text.map(|text| (text, ground, 4.5)));
    }
    for text in ["text", "muted", "good"] {
        pairs.push((text, "chosen", 4.5));
    }
    pairs.push(("bad", "bad-ground", 4.5));
    for theme in [light, dark] {
        for (text, ground, least) in &pairs {
            let ratio = contrast(theme[*text], theme[*ground]);
            assert!(ratio >= *least, "{text} on {ground}: {ratio:.2}");
        }
    }
}

/// The colours of each theme: a line `--name: light-dark(#rrggbb, #rrggbb);` for each.
fn themes() -> [BTreeMap<&'static str, [u8; 3]>; 2] {
    let mut themes = [BTreeMap::new(), BTreeMap::new()];
    for line in FILES[1].2.lines() {
        let Some((name, pair)) = line.trim().split_once(": light-dark(") else {
            continue;
        };
        let name = name.strip_prefix("--").expect("a variable");
        let pair = pair.strip_suffix(");").expect("the line's end");
        let colours = pair.split(", ").map(colour).collect::<Vec<_>>();
        assert_eq!(colours.len(), 2, "{line}");
        for (theme, colour) in themes.iter_mut().zip(colours) {
            theme.insert(name, colour);
        }
    }
    themes
}

fn colour(text: &str) -> [u8; 3] {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
    let value = u32::from_str_radix(digits.expect("a colour"), 16).expect("hex digits");
    let [_, red, green, blue] = value.to_be_bytes();
    [red, green, blue]
}

/// The contrast ratio of WCAG 2.2.
fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

fn luminance(colour: [u8; 3]) -> f64 {
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        if part <= 0.04045 {
            part / 12.92
        } else {
            ((part + 0.055) / 1.055).powf(2.4)
        }
    };
    let [red, green, blue] = colour.map(linear);
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

#[test]
fn contrast_is_counted_as_wcag_does() {
    assert!((contrast([0; 3], [255; 3]) - 21.0).abs() < 1e-9);
    // A known pair: #767676 is the lightest grey that may stand on white.
    assert!((contrast([0x76; 3], [255; 3]) - 4.54).abs() < 0.01);
}
