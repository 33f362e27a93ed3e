//! Every request of the contract finds its route, and every other is refused by name.

use super::*;

const GROUP: &[u8] = b"g";
const MEMBER: &[u8] = b"m";

fn takes(method: &str, path: &str, more: &str, route: Route<'_>) {
    routed(&request(method, path, more), |got| {
        assert_eq!(got, Ok(route), "{method} {path}")
    });
}

fn refuses(cases: &[(&str, &str, &str, Code)]) {
    for (method, path, more, code) in cases {
        assert_eq!(
            route_code(&request(method, path, more)),
            *code,
            "{method} {path} {more}"
        );
    }
}

#[test]
fn members_are_joined_beaten_read_and_left() {
    let (group, member) = (GROUP, MEMBER);
    takes("HEAD", "/g/m", "", Route::Beat { group, member });
    let page = Page {
        after: Some(b"x"),
        limit: Some(2),
    };
    takes(
        "GET",
        "/g/m?after=x&limit=2",
        "",
        Route::BeatAndGet {
            group,
            member,
            page,
        },
    );
    let join = |timeout, takeover, only_if_absent| Route::Join {
        group,
        member,
        timeout,
        takeover,
        only_if_absent,
    };
    takes("PUT", "/g/m", "", join(None, false, false));
    takes(
        "PUT",
        "/g/m?timeout=20",
        "",
        join(Some(Millis(20_000)), false, false),
    );
    takes("PUT", "/g/m?takeover", "", join(None, true, false));
    takes(
        "PUT",
        "/g/m",
        "If-None-Match: *\r\n",
        join(None, false, true),
    );
    takes(
        "PUT",
        "/g/m",
        "Content-Length: 65536\r\n",
        join(None, false, false),
    );
    takes("DELETE", "/g/m", "", Route::Leave { group, member });
}

#[test]
fn groups_are_read_listed_and_removed() {
    let (group, page) = (GROUP, Page::default());
    let get = |version, consistent| Route::GetGroup {
        group,
        page,
        version,
        wait: None,
        consistent,
    };
    takes("GET", "/g", "", get(None, false));
    takes("HEAD", "/g?", "", get(None, false));
    takes(
        "GET",
        "/g?consistent&version=4",
        "",
        get(Some(GroupVersion(4)), true),
    );
    takes("DELETE", "/g", "", Route::DeleteGroup { group });
    takes("GET", "/", "", Route::ListGroups { page });
    takes(
        "HEAD",
        "/?limit=1",
        "",
        Route::ListGroups {
            page: Page {
                after: None,
                limit: Some(1),
            },
        },
    );
}

#[test]
fn configs_of_groups_and_members_are_written_read_and_removed() {
    let (group, if_match) = (GROUP, EtagList::parse(b"\"1\""));
    let condition = "If-Match: \"1\"\r\n";
    for (path, member) in [("/g/config", None), ("/g/m/config", Some(MEMBER))] {
        takes("GET", path, "", Route::GetConfig { group, member });
        takes(
            "PUT",
            path,
            "",
            Route::PutConfig {
                group,
                member,
                if_match: None,
            },
        );
        takes(
            "PUT",
            path,
            condition,
            Route::PutConfig {
                group,
                member,
                if_match,
            },
        );
        takes(
            "DELETE",
            path,
            condition,
            Route::DeleteConfig {
                group,
                member,
                if_match,
            },
        );
    }
}

#[test]
fn the_servers_own_pages_are_found() {
    let batch = "/-/heartbeats";
    for (media_type, packed) in [
        ("Application/Octet-Stream; x=y", true),
        ("text/plain; charset=utf-8", false),
        ("application/x-www-form-urlencoded", false),
    ] {
        let more = format!("Content-Type: {media_type}\r\nContent-Length: 32\r\n");
        takes("POST", batch, &more, Route::BatchBeats { packed });
    }
    takes("POST", batch, "", Route::BatchBeats { packed: false });
    for (page, route) in [
        ("livez", Route::Livez),
        ("readyz", Route::Readyz),
        ("metrics", Route::Metrics),
        ("histograms", Route::Histograms),
        ("cluster", Route::Cluster),
        ("openapi.json", Route::OpenApi),
        (
            "sd/prometheus?port=9100&group=a%20b+c",
            Route::Targets {
                group: b"a b c",
                port: Some(9_100),
            },
        ),
        (
            "sd/prometheus?group=g",
            Route::Targets {
                group: b"g",
                port: None,
            },
        ),
    ] {
        takes("GET", &format!("/-/{page}"), "", route);
        takes("HEAD", &format!("/-/{page}"), "", route);
    }
}

#[test]
fn the_page_and_its_files_are_found() {
    for (path, file) in [
        ("/-/ui", UiFile::Page),
        ("/-/ui/", UiFile::Page),
        ("/-/ui/style.css", UiFile::Style),
        ("/-/ui/app.js", UiFile::Script),
        ("/-/ui/icon.svg", UiFile::Icon),
    ] {
        takes("GET", path, "", Route::Ui { file, known: None });
        let known = EtagList::parse(b"\"7\"");
        let more = "If-None-Match: \"7\"\r\n";
        takes("HEAD", path, more, Route::Ui { file, known });
    }
    refuses(&[
        ("GET", "/-/ui/other.js", "", Code::UnknownPage),
        ("GET", "/-/ui/app.js/x", "", Code::UnknownPage),
        ("POST", "/-/ui", "", Code::MethodNotAllowed),
        ("GET", "/-/ui?x", "", Code::UnknownParameter),
    ]);
}

#[test]
fn escaped_names_are_the_names_they_spell() {
    let beat = Route::Beat {
        group: b"g ",
        member: "mü".as_bytes(),
    };
    takes("HEAD", "/%67%20/%6d%C3%BC", "", beat);
    takes("HEAD", "/g%20/mü", "", beat);
    takes(
        "GET",
        "/g/%63onfig",
        "",
        Route::GetConfig {
            group: GROUP,
            member: None,
        },
    );
    takes(
        "GET",
        "/g/m/%63onfig",
        "",
        Route::GetConfig {
            group: GROUP,
            member: Some(MEMBER),
        },
    );
    takes("GET", "/%2D/livez", "", Route::Livez);
}

#[test]
fn paths_that_lead_nowhere_are_refused() {
    refuses(&[
        ("GET", "/g/m/x", "", Code::UnknownPage),
        ("GET", "/g/m/config/", "", Code::UnknownPage),
        ("GET", "/g/m/", "", Code::UnknownPage),
        ("GET", "/-/nothing", "", Code::UnknownPage),
        ("GET", "/-/livez/x", "", Code::UnknownPage),
        ("GET", "/-/", "", Code::UnknownPage),
        ("GET", "/-/sd/other", "", Code::UnknownPage),
        ("GET", "/-", "", Code::ReservedName),
        ("PUT", "/-g/m", "", Code::ReservedName),
        ("PUT", "/%2dg/m", "", Code::ReservedName),
        ("GET", "/g/config/config", "", Code::ReservedName),
        ("GET", "//m", "", Code::BadName),
        ("GET", "/g/", "", Code::BadName),
        ("GET", "/../m", "", Code::BadName),
        ("PUT", "/g/..", "", Code::BadName),
        ("PUT", "/g/a%2Fb", "", Code::BadName),
        ("PUT", "/g%00/m", "", Code::BadName),
    ]);
}

#[test]
fn methods_a_path_does_not_take_are_refused() {
    refuses(&[
        ("PUT", "/g", "", Code::MethodNotAllowed),
        ("POST", "/g/m", "", Code::MethodNotAllowed),
        ("POST", "/g/config", "", Code::MethodNotAllowed),
        ("POST", "/", "", Code::MethodNotAllowed),
        ("PATCH", "/g", "", Code::MethodNotAllowed),
        ("GET", "/-/heartbeats", "", Code::MethodNotAllowed),
        ("POST", "/-/livez", "", Code::MethodNotAllowed),
    ]);
    routed(&request("PUT", "/g", ""), |route| {
        assert_eq!(
            route.expect_err("a refusal").allow,
            Some("GET, HEAD, DELETE")
        );
    });
}

#[test]
fn parameters_a_route_does_not_take_are_refused() {
    refuses(&[
        ("HEAD", "/g/m?x", "", Code::UnknownParameter),
        ("GET", "/g/m?timeout=20", "", Code::UnknownParameter),
        ("PUT", "/g/m?timout=20", "", Code::UnknownParameter),
        ("GET", "/g/config?limit=1", "", Code::UnknownParameter),
        ("GET", "/-/livez?x", "", Code::UnknownParameter),
        ("GET", "/?version=1", "", Code::UnknownParameter),
        ("DELETE", "/g?limit=1", "", Code::UnknownParameter),
        ("DELETE", "/g/m?limit=1", "", Code::UnknownParameter),
        ("POST", "/-/heartbeats?x", "", Code::UnknownParameter),
        ("PUT", "/g/m?timeout=soon", "", Code::BadParameter),
        ("GET", "/?limit=0", "", Code::BadParameter),
    ]);
}

#[test]
fn a_group_is_watched_by_waiting_or_by_listening() {
    let (group, page) = (GROUP, Page::default());
    let wait = |version, wait| Route::GetGroup {
        group,
        page,
        version,
        wait,
        consistent: false,
    };
    let one = Some(GroupVersion(1));
    let half = Some(Millis(500));
    takes("GET", "/g?wait=500ms", "", wait(None, half));
    takes("HEAD", "/g?version=1&wait=0.5", "", wait(one, half));
    takes("GET", "/g?version=1", "", wait(one, None));
    let listen = |resume| Route::Watch { group, resume };
    let accept = "Accept: text/event-stream\r\n";
    takes("GET", "/g", accept, listen(None));
    takes("HEAD", "/g?version=1", accept, listen(one));
    for (id, resume) in [("1", one), ("", one), ("soon", None), ("1.0", None)] {
        let headers = format!("{accept}Last-Event-ID: {id}\r\n");
        takes("GET", "/g?version=1", &headers, listen(resume));
    }
    refuses(&[
        ("GET", "/g?wait=soon", "", Code::BadParameter),
        ("GET", "/g?version=x&wait=1", "", Code::BadParameter),
        ("GET", "/g?wait=30s", accept, Code::UnknownParameter),
        ("GET", "/g?limit=3", accept, Code::UnknownParameter),
        ("PUT", "/g", accept, Code::MethodNotAllowed),
    ]);
    let member = b"m";
    takes(
        "GET",
        "/g/m",
        accept,
        Route::BeatAndGet {
            group,
            member,
            page,
        },
    );
}

#[test]
fn targets_are_those_of_a_group_that_is_named() {
    refuses(&[
        ("GET", "/-/sd/prometheus", "", Code::BadParameter),
        ("GET", "/-/sd/prometheus?port=1", "", Code::BadParameter),
        ("GET", "/-/sd/prometheus?group=", "", Code::BadName),
        ("GET", "/-/sd/prometheus?group=a%2Fb", "", Code::BadName),
        ("GET", "/-/sd/prometheus?group=-", "", Code::ReservedName),
        (
            "GET",
            "/-/sd/prometheus?group=g&after=a",
            "",
            Code::UnknownParameter,
        ),
    ]);
}

#[test]
fn bodies_that_do_not_belong_or_fit_are_refused() {
    let one = "Content-Length: 1\r\n";
    refuses(&[
        ("HEAD", "/g/m", one, Code::BodyNotAllowed),
        ("GET", "/g/m", one, Code::BodyNotAllowed),
        ("DELETE", "/g/m", one, Code::BodyNotAllowed),
        ("GET", "/g", one, Code::BodyNotAllowed),
        ("DELETE", "/g", one, Code::BodyNotAllowed),
        ("GET", "/", one, Code::BodyNotAllowed),
        ("GET", "/g/config", one, Code::BodyNotAllowed),
        ("DELETE", "/g/config", one, Code::BodyNotAllowed),
        ("GET", "/-/livez", one, Code::BodyNotAllowed),
        (
            "PUT",
            "/g/m",
            "Content-Length: 65537\r\n",
            Code::BodyTooLarge,
        ),
        (
            "PUT",
            "/g/config",
            "Content-Length: 65537\r\n",
            Code::BodyTooLarge,
        ),
        (
            "POST",
            "/-/heartbeats",
            "Content-Type: application/json\r\n",
            Code::UnsupportedMediaType,
        ),
    ]);
    let uneven = "Content-Type: application/octet-stream\r\nContent-Length: 17\r\n";
    refuses(&[("POST", "/-/heartbeats", uneven, Code::BadBatch)]);
}

#[test]
fn conditions_that_would_be_ignored_are_refused() {
    let (tag, any) = ("If-Match: \"1\"\r\n", "If-None-Match: *\r\n");
    refuses(&[
        ("HEAD", "/g/m", tag, Code::UnsupportedCondition),
        ("GET", "/g/m", tag, Code::UnsupportedCondition),
        ("PUT", "/g/m", tag, Code::UnsupportedCondition),
        (
            "PUT",
            "/g/m",
            "If-None-Match: \"1\"\r\n",
            Code::UnsupportedCondition,
        ),
        ("DELETE", "/g/m", tag, Code::UnsupportedCondition),
        ("DELETE", "/g/m", any, Code::UnsupportedCondition),
        ("GET", "/g", tag, Code::UnsupportedCondition),
        ("DELETE", "/g", tag, Code::UnsupportedCondition),
        ("DELETE", "/g", any, Code::UnsupportedCondition),
        ("GET", "/g/config", tag, Code::UnsupportedCondition),
        ("PUT", "/g/config", any, Code::UnsupportedCondition),
        ("DELETE", "/g/config", any, Code::UnsupportedCondition),
        ("POST", "/-/heartbeats", tag, Code::UnsupportedCondition),
        ("POST", "/-/heartbeats", any, Code::UnsupportedCondition),
    ]);
}

#[test]
fn a_client_that_waits_for_100_is_closed_on_when_refused() {
    let more = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    let close = |text: &str| routed(text, |route| route.expect_err("a refusal").close);
    assert!(close(&request("PUT", "/-g/m", more)));
    assert!(!close(&request("PUT", "/-g/m", "Content-Length: 5\r\n")));
    assert!(!close(&request("PUT", "/-g/m", "Expect: 100-continue\r\n")));
    assert!(
        close(&request("PUT", "/g/m", "Content-Length: 70000\r\n")),
        "not worth skipping"
    );
}

#[test]
fn a_config_is_text() {
    assert_eq!(config_text("ü".as_bytes()), Ok("ü"));
    let problem = config_text(b"ab\xff").expect_err("a refusal");
    assert_eq!(problem.code, Code::ConfigNotUtf8);
    assert!(problem.detail.contains('2'), "{}", problem.detail);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_path_and_query_give_a_verdict_and_names_are_valid(
        path in "/[-a-c%/.é?=&2fF0]{0,20}",
        method in prop::sample::select(vec!["GET", "HEAD", "PUT", "POST", "DELETE"]),
    ) {
        routed(&request(method, &path, ""), |route| {
            if let Ok(Route::Beat { group, member }) = route {
                for name in [group, member] {
                    let text = std::str::from_utf8(name).expect("names are UTF-8");
                    assert!(!text.contains('/') && !text.contains(char::is_control), "{text:?}");
                    assert!(!["", ".", ".."].contains(&text), "{text:?}");
                }
                assert!(group[0] != b'-' && member != b"config");
            }
        });
    }

    #[test]
    fn a_heartbeat_for_any_names_finds_them_again(
        group in "[^/\\p{Cc}]{1,20}",
        member in "[^/\\p{Cc}]{1,20}",
    ) {
        prop_assume!(!group.starts_with('-') && member != "config");
        prop_assume!([&group, &member].iter().all(|name| *name != "." && *name != ".."));
        let escape = |name: &str| name.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
        let path = format!("/{}/{}", escape(&group), escape(&member));
        takes("HEAD", &path, "", Route::Beat { group: group.as_bytes(), member: member.as_bytes() });
    }
}
