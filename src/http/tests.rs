//! The codec as a whole: parse and route together, httparse as the oracle, and every way
//! the network may cut the bytes.

mod routes;

use proptest::prelude::*;

use super::*;
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

fn parsed(text: &str) -> Request<'_> {
    parse(
        text.as_bytes(),
        &mut Progress::default(),
        &Limits::default(),
    )
    .unwrap_or_else(|problem| panic!("{text:?}: {problem:?}"))
    .unwrap_or_else(|| panic!("{text:?} is not complete"))
}

fn refused(text: &str) -> Code {
    let problem = parse(
        text.as_bytes(),
        &mut Progress::default(),
        &Limits::default(),
    )
    .expect_err("a refusal");
    assert!(
        problem.close,
        "where the next request begins is not known: {problem:?}"
    );
    problem.code
}

/// A request for `path` with more header lines, each ended by CR LF.
fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n")
}

fn routed<R>(text: &str, look: impl FnOnce(Result<Route<'_>, Problem>) -> R) -> R {
    let request = parsed(text);
    let mut scratch = Scratch::new();
    look(route(&request, &mut scratch))
}

fn route_code(text: &str) -> Code {
    routed(text, |route| route.expect_err(text).code)
}

#[test]
fn what_wrk_and_curl_send_is_understood() {
    let text = "HEAD /g/m?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8640\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\nrest";
    let request = parsed(text);
    assert_eq!(request.method, Method::Head);
    assert_eq!((request.path, request.query), (&b"/g/m"[..], &b"x=1"[..]));
    assert_eq!(request.head_len, text.len() - "rest".len());
    assert_eq!((request.body_len, request.keep_alive), (0, true));
    assert!(request.head_only());
    assert_eq!(request.headers, Headers::default());
}

#[test]
fn headers_that_matter_are_decoded_whatever_their_case_and_spacing() {
    let id = SessionId::from_parts(3, 7);
    let text = request(
        "PUT",
        "/g/m",
        &format!(
            "X-SESSION-ID:{id}\r\nx-group-version: \t12 \r\nIf-None-Match:*\r\nif-match: \"1\"\r\n\
             Prefer: return=minimal\r\nAccept: text/event-stream\r\nContent-Type: a/b\r\n\
             Last-Event-ID: 9\r\ncontent-length: 0012\r\nExpect: 100-Continue\r\nConnection: x, Close\r\n"
        ),
    );
    let request = parsed(&text);
    let headers = &request.headers;
    assert_eq!(headers.session_id, Some(id));
    assert_eq!(headers.group_version, Some(GroupVersion(12)));
    assert!(headers.if_none_match.is_some_and(|list| list.is_any()));
    assert!(
        headers
            .if_match
            .is_some_and(|list| list.matches_strongly(1))
    );
    assert!(headers.prefer_minimal && headers.accepts_event_stream);
    assert_eq!(headers.content_type, Some(&b"a/b"[..]));
    assert_eq!(headers.last_event_id, Some(&b"9"[..]));
    assert_eq!(request.body_len, 12);
    assert!(request.expect_continue && !request.keep_alive);
    assert_eq!(request.total_len(), text.len() + 12);
}

#[test]
fn http_1_0_needs_no_host_and_is_not_kept_alive() {
    let request =
        parsed("GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n");
    assert!(!request.keep_alive);
    assert!(
        !request.expect_continue,
        "an HTTP/1.0 client knows no interim answers"
    );
    assert_eq!(
        refused("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        Code::BadHost
    );
}

#[test]
fn an_absolute_target_is_cut_to_its_path() {
    let text = request("GET", "http://a.example:80/g?limit=1", "");
    assert_eq!(
        (parsed(&text).path, parsed(&text).query),
        (&b"/g"[..], &b"limit=1"[..])
    );
    assert_eq!(parsed(&request("GET", "HTTPS://[::1]:80", "")).path, b"/");
    assert_eq!(
        parsed(&request("GET", "http://a?limit=1", "")).query,
        b"limit=1"
    );
    for target in [
        "ftp://a/",
        "http:///g",
        "http://u@a/",
        "*",
        "a:80",
        "g/m",
        "http:/",
        "?x",
    ] {
        assert_eq!(
            refused(&request("GET", target, "")),
            Code::MalformedRequest,
            "{target}"
        );
    }
}

#[test]
fn one_empty_line_before_a_request_is_forgiven_and_counted() {
    let text = format!("\r\n{}", request("GET", "/g", ""));
    assert_eq!(parsed(&text).head_len, text.len());
    assert_eq!(refused(&format!("\r\n{text}")), Code::MalformedRequest);
    assert_eq!(
        refused(&format!("\n{}", request("GET", "/g", ""))),
        Code::MalformedRequest
    );
    assert!(begins_with_head_method(b"\r\nHEAD /"));
    assert!(begins_with_head_method(b"HEAD /") && !begins_with_head_method(b"HEADER /"));
}

#[test]
fn every_limit_is_exact() {
    let limits = Limits {
        head_bytes_max: 100,
        target_bytes_max: 10,
        headers_max: 3,
        body_bytes_max: 20,
    };
    let verdict = |text: &str| {
        let read = parse(text.as_bytes(), &mut Progress::default(), &limits);
        read.map(|request| request.is_some())
            .map_err(|problem| problem.code)
    };
    assert_eq!(verdict(&request("GET", "/123456789", "")), Ok(true));
    assert_eq!(
        verdict(&request("GET", "/1234567890", "")),
        Err(Code::TargetTooLong)
    );
    assert_eq!(
        verdict("GET /1234567890"),
        Err(Code::TargetTooLong),
        "whatever follows"
    );
    assert_eq!(verdict(&request("GET", "/", "a:\r\nb:\r\n")), Ok(true));
    assert_eq!(
        verdict(&request("GET", "/", "a:\r\nb:\r\nc:\r\n")),
        Err(Code::TooManyHeaders)
    );
    assert_eq!(
        verdict(&request("GET", "/", "Content-Length: 20\r\n")),
        Ok(true)
    );
    let too_large = request("GET", "/", "Content-Length: 21\r\n");
    assert_eq!(verdict(&too_large), Err(Code::BodyTooLarge));
    let huge = request("GET", "/", "Content-Length: 99999999999999999999999999\r\n");
    assert_eq!(verdict(&huge), Err(Code::BodyTooLarge));
    let fill = 100 - request("GET", "/", "a:\r\n").len();
    let exact = request("GET", "/", &format!("a:{}\r\n", "x".repeat(fill)));
    assert_eq!(exact.len(), 100);
    assert_eq!(verdict(&exact), Ok(true));
    let over = request("GET", "/", &format!("a:{}\r\n", "x".repeat(fill + 1)));
    assert_eq!(verdict(&over), Err(Code::HeadTooLarge));
    assert_eq!(
        verdict(&over[..99]),
        Ok(false),
        "there may be no more of it"
    );
    assert_eq!(verdict(&over[..100]), Err(Code::HeadTooLarge));
}

#[test]
fn methods_that_are_no_words_are_malformed_and_strange_words_unknown() {
    for method in [
        "get",
        "BREW",
        "CONNECT",
        "HEADS",
        "PRI",
        "AVERYLONGMETHODOFMANYLETTERS",
    ] {
        assert_eq!(
            refused(&request(method, "/g", "")),
            Code::UnknownMethod,
            "{method}"
        );
    }
    for method in ["", "G(T", "\u{1}", "GET\t"] {
        assert_eq!(
            refused(&request(method, "/g", "")),
            Code::MalformedRequest,
            "{method:?}"
        );
    }
    assert_eq!(
        route_code(&request("PATCH", "/g", "")),
        Code::MethodNotAllowed
    );
}

#[test]
fn a_header_with_a_bad_value_is_refused_but_the_connection_lives() {
    for line in [
        "x-session-id: 12",
        "x-group-version: -1",
        "If-Match: 1",
        "If-None-Match: \"",
        "Content-Type: a\r\nContent-Type: a",
        "x-group-version: 1\r\nx-group-version: 1",
        "Last-Event-ID: 1\r\nLast-Event-ID: 2",
    ] {
        let text = request("HEAD", "/g/m", &format!("{line}\r\n"));
        let problem = routed(&text, |route| route.expect_err(line));
        assert_eq!(
            (problem.code, problem.close),
            (Code::BadHeader, false),
            "{line}"
        );
        let name = line.split(':').next().expect("a name");
        assert!(problem.detail.contains(name), "{}", problem.detail);
    }
}

#[test]
fn a_head_that_drips_is_read_seldom() {
    // A reading that cannot tell anything new must not happen: count them by the state
    // that each leaves behind.
    let text = request(
        "GET",
        &format!("/{}", "g".repeat(3_000)),
        &"a: b\r\n".repeat(50),
    );
    let (mut progress, limits) = (Progress::default(), Limits::default());
    let mut readings = 0;
    for end in 1..text.len() {
        let before = progress;
        let read = parse(&text.as_bytes()[..end], &mut progress, &limits);
        assert_eq!(read, Ok(None), "at {end}");
        readings += u32::from(progress.was_read_since(&before));
    }
    assert!((52..=60).contains(&readings), "{readings} readings");
}

#[test]
fn less_than_was_there_before_is_read_as_something_new() {
    let text = request("GET", "/g", "");
    let (mut progress, limits) = (Progress::default(), Limits::default());
    assert_eq!(
        parse(b"GET /a-long-beginning", &mut progress, &limits),
        Ok(None)
    );
    assert_eq!(parse(b"GET /", &mut progress, &limits), Ok(None));
    let read = parse(text.as_bytes(), &mut progress, &limits);
    assert_eq!(read, Ok(Some(parsed(&text))));
}

/// Verdict on a stream that comes whole, or `None` if it never becomes complete.
type Verdict = Option<Result<(usize, usize), Code>>;

fn whole(bytes: &[u8]) -> Verdict {
    settle(parse(bytes, &mut Progress::default(), &Limits::default()))
}

fn settle(read: Result<Option<Request<'_>>, Problem>) -> Verdict {
    match read {
        Ok(None) => None,
        Ok(Some(request)) => Some(Ok((request.head_len, request.body_len))),
        Err(problem) => Some(Err(problem.code)),
    }
}

/// Verdict on the same bytes when they come in pieces that end at `cuts`.
fn in_pieces(bytes: &[u8], cuts: &[usize]) -> Verdict {
    let mut progress = Progress::default();
    for &cut in cuts {
        let verdict = settle(parse(&bytes[..cut], &mut progress, &Limits::default()));
        if verdict.is_some() {
            return verdict;
        }
    }
    settle(parse(bytes, &mut progress, &Limits::default()))
}

/// Requests that are nearly well: made of pieces that parsers quarrel about.
fn near_request() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "GET ", "HEAD ", "PUT ", "POST", "/g/m", "/", "?a=b", " HTTP/1.1", " HTTP/1.0", " HTTP/1.",
            "\r\n", "\r\n\r\n", "Host: x\r\n", "Host", ": ", ":", "x", "\t", " ", "Content-Length: 5\r\n",
            "Content-Length", "Transfer-Encoding: chunked\r\n", "\n", "\r", "a: b\r\n", "%2f", "é",
            "http://h", "Expect: 100-continue\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    let line = prop::sample::select(vec![
        &b""[..],
        b"HEAD /g/m HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"\r\nPUT /g/m HTTP/1.1\r\nhost:y\r\n",
    ]);
    (line, prop::collection::vec(piece, 0..12), any::<bool>()).prop_map(|(line, pieces, end)| {
        let end: &[u8] = if end { b"\r\n\r\n" } else { b"" };
        [line, &pieces.concat(), end].concat()
    })
}

/// True if these bytes, or a request that they begin, are refused in the end.
fn is_refused(bytes: &[u8]) -> bool {
    let end = b"HTTP/1.1\r\nHost: x\r\n\r\n";
    let whole = [bytes, end].concat();
    let mut progress = Progress::default();
    match parse(&whole, &mut progress, &Limits::default()) {
        Ok(Some(request)) => route(&request, &mut Scratch::new()).is_err(),
        Ok(None) => false,
        Err(_) => true,
    }
}

#[test]
fn a_target_that_is_not_utf8_is_refused_once_its_names_are_read() {
    for bytes in [
        &b"POST HTTP/1.1\x80GET "[..],
        b"HEAD /g/\x80 ",
        b"GET /\xc3 ",
    ] {
        assert!(is_refused(bytes));
        agrees_with_httparse(bytes).unwrap();
        agrees_with_httparse(&[bytes, b"HTTP/1.1\r\nHost: x\r\n\r\n"].concat()).unwrap();
    }
}

/// Whatever we take, httparse takes, and reads the same; whatever it refuses, we refuse. It looks
/// for UTF-8 in the target at once, and we when the names are read.
fn agrees_with_httparse(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut oracle = httparse::Request::new(&mut headers);
    let oracle_says = oracle.parse(bytes);
    let mut progress = Progress::default();
    let read = parse(bytes, &mut progress, &Limits::default());
    match (read, oracle_says) {
        (Ok(Some(request)), Ok(httparse::Status::Complete(head_len))) => {
            prop_assert_eq!(request.head_len, head_len);
            let method = format!("{:?}", request.method).to_uppercase();
            prop_assert_eq!(Some(method.as_str()), oracle.method);
            let target = oracle.path.expect("a target").as_bytes();
            prop_assert!(target.ends_with(request.query));
            if target[0] == b'/' {
                let path_len = request.path.len();
                prop_assert_eq!(request.path, &target[..path_len]);
            }
            let value = |name: &str| {
                let mut all = oracle.headers.iter();
                all.find(|header| header.name.eq_ignore_ascii_case(name))
                    .map(|header| header.value)
            };
            let length = value("content-length").map_or(0, |digits| {
                let text = std::str::from_utf8(digits).expect("digits");
                text.parse().expect("a number")
            });
            prop_assert_eq!(request.body_len, length);
            prop_assert!(value("transfer-encoding").is_none());
            prop_assert!(value("host").is_some() || oracle.version == Some(0));
        }
        (Ok(Some(_) | None), Err(_)) if std::str::from_utf8(bytes).is_err() => {
            prop_assert!(is_refused(bytes));
        }
        (Ok(Some(request)), other) => prop_assert!(false, "{request:?}, httparse: {other:?}"),
        (Ok(None), Err(error)) => prop_assert!(false, "waiting, httparse: {error}"),
        (Ok(None) | Err(_), _) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_is_taken_that_httparse_refuses_or_reads_otherwise(bytes in near_request()) {
        agrees_with_httparse(&bytes)?;
    }

    #[test]
    fn any_bytes_give_a_verdict(bytes in any::<Vec<u8>>()) {
        agrees_with_httparse(&bytes)?;
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_are_cut(
        bytes in near_request(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        // A line end after it lets every verdict that waits for one fall.
        let bytes = [&bytes[..], b"\r\n\r\n"].concat();
        let expected = whole(&bytes);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(in_pieces(&bytes, &cuts), expected);
        let every: Vec<_> = (0..bytes.len()).collect();
        prop_assert_eq!(in_pieces(&bytes, &every), expected);
    }
}
