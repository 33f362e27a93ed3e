//! The page at `/-/ui`: what is served, and, in a headless Chromium if there is one, what it
//! shows.

#[path = "ui/browser.rs"]
mod browser;
mod common;
#[path = "ui/files.rs"]
mod files;
#[path = "ui/fleet.rs"]
mod fleet;
#[path = "ui/lone.rs"]
mod lone;

use std::time::Duration;

use browser::Browser;
use common::{Client, Deadline, Server, Setup, now};
use lone::Lone;
use rustix::process::Signal;
use serde_json::json;

/// A name that would be an element, and a script, if it were taken for HTML.
const HOSTILE: &str = "<img src=x onerror=document.title='broken'>";

fn start() -> Option<(Server, Browser)> {
    let browser = Browser::start()?;
    Some((Setup::new().start(), browser))
}

fn origin(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// Opens the page at a group and waits until its stream is.
fn open(server: &Server, browser: &mut Browser, group: &str) {
    browser.open(&format!("{}/-/ui#group={group}", origin(server)));
    browser.wait_for("document.getElementById('stream').textContent === 'live'");
}

fn join(client: &mut Client, group: &str, member: &str, timeout: &str, config: &str) {
    let target = format!("/{group}/{}?timeout={timeout}", escaped(member));
    client
        .ask_with("PUT", &target, &[], config.as_bytes())
        .expect_any(&[200, 201]);
}

fn escaped(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// True in the page if the list of members shows this one in this state.
fn shows(member: &str, state: &str) -> String {
    format!(
        "[...document.querySelectorAll('.member')].some((row) => \
         row.querySelector('.name').textContent === {} && \
         row.querySelector('.state').textContent === '{state}')",
        json!(member)
    )
}

#[test]
fn a_member_that_joins_appears_and_one_that_falls_silent_disappears() {
    let Some((server, mut browser)) = start() else {
        return;
    };
    let mut client = server.client();
    join(&mut client, "g", "stays", "10m", "");
    open(&server, &mut browser, "g");
    browser.wait_for(&shows("stays", "active"));
    let timeout = Duration::from_secs(1);
    let late = (0..4).map(|index| {
        let name = format!("m{index}");
        join(&mut client, "g", &name, "1", "");
        let beaten = now();
        browser.wait_for(&shows(&name, "active"));
        browser.wait_for(&format!("!({})", shows(&name, "active")));
        beaten.elapsed()
    });
    let soonest = late.min().expect("some");
    assert!(
        soonest >= timeout,
        "nobody is shown as gone before: {soonest:?}"
    );
    // Both of each are told of in the list, the newest first.
    let told = browser.value(
        "[...document.querySelectorAll('#events li')].slice(0, 2).map((item) => \
         item.querySelector('.kind').textContent + ' ' + item.querySelector('.name').textContent)",
    );
    assert_eq!(told, json!(["expired m3", "joined m3"]));
    let legend = browser.value("document.getElementById('legend').textContent");
    assert_eq!(legend, "4 joins4 expiries0 leaves");
    browser.assert_clean(&origin(&server));
}

#[test]
fn a_member_with_a_config_becomes_inactive_and_its_config_is_shown() {
    let Some((server, mut browser)) = start() else {
        return;
    };
    let mut client = server.client();
    open(&server, &mut browser, "g");
    browser.wait_for("!document.getElementById('group-hint').hidden");
    join(&mut client, "g", "m", "10m", r#"{"port":5432}"#);
    browser.wait_for(&shows("m", "active"));
    browser.click(".member");
    browser.wait_for(
        "document.getElementById('member-config').textContent.includes('\"port\": 5432')",
    );
    client.ask("DELETE", "/g/m").expect(204);
    browser.wait_for(&shows("m", "inactive"));
    client.ask_with("PUT", "/g/config", &[], b"all").expect(204);
    browser.wait_for("document.getElementById('group-config-text').textContent === 'all'");
    client.ask("DELETE", "/g/m/config").expect(204);
    browser.wait_for(&format!("!({})", shows("m", "inactive")));
    client.ask("DELETE", "/g").expect(204);
    browser.wait_for("document.getElementById('group-hint').textContent.includes('removed')");
    browser.assert_clean(&origin(&server));
}

#[test]
fn names_and_configs_are_text_whatever_they_hold() {
    let Some((server, mut browser)) = start() else {
        return;
    };
    let mut client = server.client();
    let config = format!("{HOSTILE}</pre><script>document.title='broken'</script>");
    let group = escaped(HOSTILE);
    join(&mut client, &group, HOSTILE, "10m", &config);
    join(&mut client, &group, "__proto__", "10m", "");
    open(&server, &mut browser, &group);
    browser.wait_for(&shows(HOSTILE, "active"));
    browser.wait_for(&shows("__proto__", "active"));
    browser.click(".member");
    let shown = browser.value("document.getElementById('member-config').textContent");
    assert_eq!(shown, config);
    browser.wait_for("document.querySelector('#groups .name') !== null");
    for place in ["#groups .name", "#group-title", "#member-name"] {
        let text = browser.value(&format!("document.querySelector('{place}').textContent"));
        assert_eq!(text, HOSTILE, "{place}");
    }
    // Its events too.
    client
        .ask("DELETE", &format!("/{group}/{group}"))
        .expect(204);
    browser.wait_for(&format!(
        "document.querySelector('#events .name')?.textContent === {}",
        json!(HOSTILE)
    ));
    let elements = browser.value("document.querySelectorAll('img, script:not([src])').length");
    assert_eq!(elements, 0);
    let title = browser.value("document.title");
    assert_eq!(title, "systole 1: leading");
    browser.assert_clean(&origin(&server));
}

#[test]
fn the_theme_is_the_systems_until_another_is_chosen() {
    let Some((server, mut browser)) = start() else {
        return;
    };
    let ground = "getComputedStyle(document.body).backgroundColor";
    let (light, dark) = ("rgb(244, 246, 248)", "rgb(15, 20, 24)");
    browser.prefer("dark");
    browser.open(&format!("{}/-/ui", origin(&server)));
    assert_eq!(browser.value(ground), dark);
    browser.prefer("light");
    assert_eq!(browser.value(ground), light);
    // The button goes from auto to light to dark, and the choice outlives the page.
    for theme in [light, dark] {
        browser.click("#theme");
        assert_eq!(browser.value(ground), theme);
    }
    browser.open("about:blank?");
    browser.open(&format!("{}/-/ui", origin(&server)));
    assert_eq!(browser.value(ground), dark);
}

#[test]
fn groups_are_found_by_how_their_names_begin_and_turned_by_pages() {
    let Some((server, mut browser)) = start() else {
        return;
    };
    let mut client = server.client();
    for index in 0..60 {
        join(&mut client, &format!("a{index:02}"), "m", "10m", "");
    }
    for group in ["b", "b1", "c"] {
        join(&mut client, group, "m", "10m", "");
    }
    browser.open(&format!("{}/-/ui", origin(&server)));
    let names = "[...document.querySelectorAll('#groups .name')].map((n) => n.textContent).join()";
    let count = "document.querySelectorAll('#groups li').length";
    browser.wait_for(&format!("{count} === 50"));
    browser.click("#groups-next");
    browser.wait_for(&format!("{count} === 13"));
    browser.enter("group-search", "b");
    browser.wait_for(&format!("{names} === 'b,b1'"));
    browser.click("#groups a");
    browser.wait_for("document.getElementById('group-title').textContent === 'b'");
    browser.wait_for(&shows("m", "active"));
    browser.assert_clean(&origin(&server));
}

#[test]
fn a_server_that_does_not_answer_is_shown_as_cut_off_until_it_does() {
    let Some((server, mut browser)) = start() else {
        return;
    };
    let mut client = server.client();
    join(&mut client, "g", "before", "10m", "");
    open(&server, &mut browser, "g");
    browser.wait_for(&shows("before", "active"));
    let ready = "document.getElementById('ready').textContent";
    let alert = "document.getElementById('alert')";
    browser.wait_for(&format!("{ready} === 'ready' && {alert}.hidden"));
    server.signal(Signal::STOP);
    browser.wait_for(&format!("{ready} === 'cut off' && !{alert}.hidden"));
    browser.wait_for("document.getElementById('stream').textContent === 'cut off'");
    server.signal(Signal::CONT);
    join(&mut client, "g", "after", "10m", "");
    browser.wait_for(&format!("{ready} === 'ready' && {alert}.hidden"));
    browser.wait_for(&shows("after", "active"));
    // It went on where it was, and was told of what it had missed.
    let told = browser.value("document.querySelector('#events .name').textContent");
    assert_eq!(told, "after");
}

#[test]
fn a_large_group_is_shown_without_drawing_all_of_it() {
    let Some((server, mut browser)) = start() else {
        return;
    };
    let count = fleet::number("SYSTOLE_UI_MEMBERS", 5_000);
    let mut client = server.client();
    fleet::fill(&mut client, "large", count);
    open(&server, &mut browser, "large");
    let rows = "document.querySelectorAll('.member').length";
    browser.wait_for(&format!("{rows} > 0"));
    let all =
        browser.value("document.getElementById('members-count').textContent.replace(',', '')");
    assert_eq!(all, count.to_string());
    // By keys to the end and back: there are never more rows than fit.
    browser.value("document.getElementById('members').focus()");
    for (key, index) in [
        ("End", count - 1),
        ("PageUp", 0),
        ("Home", 0),
        ("ArrowDown", 1),
    ] {
        browser.press(key);
        if key != "PageUp" {
            let chosen = fleet::member(index);
            browser.wait_for(&format!(
                "document.querySelector('.member[aria-selected=true] .name')?.textContent === '{chosen}'"
            ));
        }
        let drawn = browser.value(rows).as_u64().expect("a number");
        assert!(drawn < 60, "{drawn} rows after {key}");
    }
    let wanted = fleet::member(count / 2);
    browser.enter("member-search", &wanted);
    browser.wait_for(&shows(&wanted, "active"));
    assert_eq!(browser.value(rows), 1);
    client
        .ask("DELETE", &format!("/large/{wanted}"))
        .expect(204);
    browser.wait_for(&format!("{rows} === 0"));
    browser.assert_clean(&origin(&server));
}

#[test]
fn a_group_that_is_too_large_to_be_held_is_shown_by_pages() {
    let Some((server, mut browser)) = start() else {
        return;
    };
    let mut client = server.client();
    fleet::fill(&mut client, "large", 1_200);
    open(&server, &mut browser, "large&live=1000");
    let first = "document.querySelector('.member .name')?.textContent";
    let facts = "document.querySelector('#group-facts dd').textContent";
    browser.wait_for(&format!("{first} === '{}'", fleet::member(0)));
    assert_eq!(browser.value(facts), "1,200");
    for page in 1..3 {
        browser.click("#page-next");
        browser.wait_for(&format!("{first} === '{}'", fleet::member(500 * page)));
    }
    assert_eq!(
        browser.value("document.getElementById('page-next').disabled"),
        true
    );
    // Events are told of all members, and move those of the page.
    client
        .ask("DELETE", &format!("/large/{}", fleet::member(1_000)))
        .expect(204);
    browser.wait_for(&format!("{first} === '{}'", fleet::member(1_001)));
    join(&mut client, "large", "a", "10m", "");
    join(&mut client, "large", "b", "10m", "");
    browser.wait_for(&format!("{facts} === '1,201'"));
    browser.enter("member-search", "node-00050");
    browser.wait_for("document.getElementById('members-count').textContent === '10 of 1,201'");
    assert_eq!(
        browser.value("document.getElementById('page-next').disabled"),
        true
    );
    browser.assert_clean(&origin(&server));
}

#[test]
fn a_server_that_is_not_ready_says_so_on_its_page() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let server = Lone::start();
    browser.open(&format!("http://{}/-/ui#group=g", server.address));
    browser.wait_for("document.getElementById('ready').textContent === 'not ready'");
    browser.wait_for(
        "document.getElementById('alert').textContent.startsWith('This server is not ready')",
    );
    browser.wait_for("document.getElementById('ensemble').textContent.includes('Leadernone')");
}

/// Pictures for `tests/ui/screenshots.sh`, if it asks for them; the same page is looked at in any
/// case.
#[test]
fn the_page_lives_while_members_beat_come_and_go() {
    let Some((server, mut browser)) = start() else {
        return;
    };
    let pictures = std::env::var("SYSTOLE_UI_PICTURES").ok();
    let seconds = fleet::number("SYSTOLE_UI_SECONDS", 5);
    let large = fleet::number("SYSTOLE_UI_MEMBERS", 100);
    let mut client = server.client();
    fleet::fill(&mut client, "fleet", large);
    for group in ["cache", "mail", "queue", "web", "workers"] {
        fleet::fill(&mut client, group, 7);
    }
    for index in 0..10 {
        let config = format!(
            r#"{{"port":{},"zone":"{}"}}"#,
            5432 + index,
            ["a", "b"][index % 2]
        );
        join(
            &mut client,
            "database",
            &format!("db{index}"),
            "10m",
            &config,
        );
    }
    client
        .ask_with("PUT", "/database/config", &[], br#"{"primary":"db0"}"#)
        .expect(204);
    for group in ["database", "fleet"] {
        open(&server, &mut browser, group);
        browser.enter("window", "60");
        let deadline = Deadline::after(Duration::from_secs(seconds as u64));
        let mut turn = 0;
        while !deadline.passed() {
            fleet::live(&mut client, group, turn);
            turn += 1;
        }
        browser.wait_for("document.querySelectorAll('#timeline rect').length > 1");
        browser.wait_for("document.getElementById('beats').textContent !== '–'");
        for theme in ["light", "dark"] {
            browser.prefer(theme);
            let picture = fleet::png(&browser.picture());
            assert!(picture.starts_with(b"\x89PNG"), "a picture");
            if let Some(dir) = &pictures {
                let count = if group == "fleet" { large } else { 10 };
                let path = format!("{dir}/{count}-members-{theme}.png");
                std::fs::write(path, picture).expect("to write the picture");
            }
        }
    }
    browser.assert_clean(&origin(&server));
}
