//! What a request asks for.

use crate::time::Millis;
use crate::types::GroupVersion;

use super::etag::EtagList;
use super::headers::digits;
use super::name::{self, NAME_BUFFER, NameBuffer, NameFault};
use super::parse::{Method, Request};
use super::problem::{Code, Problem, quoted};
use super::query::{self, Query};
use super::scan;

/// A request understood. Names are valid (see the documentation of [`crate::http`]), and
/// they are UTF-8 although given as bytes.
///
/// A HEAD for anything but a member is the same as a GET: who answers asks
/// [`Request::head_only`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `HEAD /G/M`.
    Beat {
        /// The group.
        group: &'a [u8],
        /// The member.
        member: &'a [u8],
    },
    /// `GET /G/M`.
    BeatAndGet {
        /// The group.
        group: &'a [u8],
        /// The member.
        member: &'a [u8],
        /// Which members to show.
        page: Page<'a>,
    },
    /// `PUT /G/M`; the body, if any, is the member's config.
    Join {
        /// The group.
        group: &'a [u8],
        /// The member.
        member: &'a [u8],
        /// The timeout asked for; bounds are not checked here.
        timeout: Option<Millis>,
        /// End the member's present session, if any.
        takeover: bool,
        /// Refuse if the member is active (`If-None-Match: *`).
        only_if_absent: bool,
    },
    /// `DELETE /G/M`.
    Leave {
        /// The group.
        group: &'a [u8],
        /// The member.
        member: &'a [u8],
    },
    /// `GET /G`.
    GetGroup {
        /// The group.
        group: &'a [u8],
        /// Which members to show.
        page: Page<'a>,
        /// Wait until the group's version is above this; absent, above what it is now.
        version: Option<GroupVersion>,
        /// Wait so long at most. With neither this nor a version nobody waits.
        wait: Option<Millis>,
        /// Pass a flush barrier first.
        consistent: bool,
    },
    /// `GET /G` with `Accept: text/event-stream`.
    Watch {
        /// The group.
        group: &'a [u8],
        /// Go on after this version: `Last-Event-ID`, or else `?version=`. Absent if neither
        /// was given, or the former is no version.
        resume: Option<GroupVersion>,
    },
    /// `DELETE /G`.
    DeleteGroup {
        /// The group.
        group: &'a [u8],
    },
    /// `GET /`.
    ListGroups {
        /// Which groups to show.
        page: Page<'a>,
    },
    /// `GET /G/config` or `/G/M/config`.
    GetConfig {
        /// The group.
        group: &'a [u8],
        /// The member; absent if the group's own config is meant.
        member: Option<&'a [u8]>,
    },
    /// `PUT /G/config` or `/G/M/config`; the body is the config.
    PutConfig {
        /// The group.
        group: &'a [u8],
        /// The member; absent if the group's own config is meant.
        member: Option<&'a [u8]>,
        /// `If-Match` on the config's version.
        if_match: Option<EtagList<'a>>,
    },
    /// `DELETE /G/config` or `/G/M/config`.
    DeleteConfig {
        /// The group.
        group: &'a [u8],
        /// The member; absent if the group's own config is meant.
        member: Option<&'a [u8]>,
        /// `If-Match` on the config's version.
        if_match: Option<EtagList<'a>>,
    },
    /// `POST /-/heartbeats`.
    BatchBeats {
        /// The body is session ids of 16 bytes, else lines of names.
        packed: bool,
    },
    /// `GET /-/livez`.
    Livez,
    /// `GET /-/readyz`.
    Readyz,
    /// `GET /-/metrics`.
    Metrics,
    /// `GET /-/histograms`.
    Histograms,
    /// `GET /-/cluster`.
    Cluster,
    /// `GET /-/openapi.json`.
    OpenApi,
    /// `GET /-/sd/prometheus`.
    Targets {
        /// The group whose active members are the targets.
        group: &'a [u8],
        /// The port of members that name none.
        port: Option<u16>,
    },
    /// `GET /-/ui` and what belongs to it.
    Ui {
        /// Which file of the page.
        file: UiFile,
        /// `If-None-Match`.
        known: Option<EtagList<'a>>,
    },
}

/// A file of the page at `/-/ui`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UiFile {
    /// `/-/ui`.
    Page,
    /// `/-/ui/style.css`.
    Style,
    /// `/-/ui/app.js`.
    Script,
    /// `/-/ui/icon.svg`.
    Icon,
}

/// Which part of a sorted list to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page<'a> {
    /// Only what comes after this.
    pub after: Option<&'a [u8]>,
    /// At most so many; 1 or more.
    pub limit: Option<u32>,
}

/// Room for names that had escapes in them. One a shard is enough.
#[derive(Debug)]
pub struct Scratch {
    group: NameBuffer,
    member: NameBuffer,
    after: NameBuffer,
}

impl Scratch {
    /// Room for one request.
    #[must_use]
    pub const fn new() -> Scratch {
        Scratch {
            group: NAME_BUFFER,
            member: NAME_BUFFER,
            after: NAME_BUFFER,
        }
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

/// Largest config in bytes; beyond: 413.
pub const CONFIG_BYTES_MAX: usize = 64 * 1024;

/// Finds what `request` asks for. The body need not be there yet.
///
/// Cost: one pass over the path; nothing allocated unless the request is refused.
///
/// # Errors
/// Why there is no such route, or its arguments make no sense. The connection lives on
/// (the caller skips the body) unless the problem says `close`, which it does if the body
/// is too large to be skipped or the client waits to be told whether to send it.
#[inline]
pub fn route<'a>(request: &Request<'a>, scratch: &'a mut Scratch) -> Result<Route<'a>, Problem> {
    find(request, scratch).map_err(|problem| hold_back(problem, request))
}

/// A client that asked whether to send its body may or may not send it after a refusal,
/// so that the bytes that follow could be either.
#[cold]
fn hold_back(mut problem: Problem, request: &Request<'_>) -> Problem {
    problem.close |= request.expect_continue && request.body_len > 0;
    problem
}

#[inline]
fn find<'a>(request: &Request<'a>, scratch: &'a mut Scratch) -> Result<Route<'a>, Problem> {
    let Scratch {
        group,
        member,
        after,
    } = scratch;
    if let Some(fault) = request.headers.fault {
        return Err(Problem::new(Code::BadHeader).detail(fault));
    }
    if let Some((group, member)) = plain_pair(request.path) {
        return on_member(request, group, member, after);
    }
    let Path {
        first,
        second,
        third,
    } = split(request.path);
    let Some(second) = second else {
        if first.is_empty() {
            return list_groups(request, after);
        }
        let group = group_name(first, group)?;
        return on_group(request, group, after);
    };
    let group = match name::segment(first, group) {
        Ok(b"-") => return own_page(request, second, third, after),
        Ok(name) => checked(name, name::check_group(name), "group")?,
        Err(fault) => return Err(bad_name("group", first, fault)),
    };
    let second =
        name::segment(second, member).map_err(|fault| bad_name("member", second, fault))?;
    let Some(third) = third else {
        return match second {
            b"config" => on_config(request, group, None),
            member => on_member(request, group, member, after),
        };
    };
    if name::segment(third, after) != Ok(b"config") {
        return Err(unknown_page());
    }
    let member = checked(second, name::check_member(second), "member")?;
    on_config(request, group, Some(member))
}

/// Group and member of a path of two names that are good as they stand: nearly every path.
/// `None` says nothing about the others.
#[inline]
fn plain_pair(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = &path[1..];
    let group_len = scan::plain_name_len(path);
    let (group, rest) = path.split_at(group_len);
    let member = rest.strip_prefix(b"/")?;
    if scan::plain_name_len(member) < member.len() {
        return None;
    }
    name::check_pair(group, member).ok()?;
    Some((group, member))
}

/// A path's segments, as sent. Whatever follows a third slash is part of the third.
struct Path<'a> {
    first: &'a [u8],
    second: Option<&'a [u8]>,
    third: Option<&'a [u8]>,
}

/// Parts a path, which begins with `/`.
#[inline]
fn split(path: &[u8]) -> Path<'_> {
    let (first, second) = cut(&path[1..]);
    let (second, third) = match second {
        Some(rest) => {
            let (second, third) = cut(rest);
            (Some(second), third)
        }
        None => (None, None),
    };
    Path {
        first,
        second,
        third,
    }
}

/// What stands before the first slash, and what after it, if there is one.
#[inline]
fn cut(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let len = scan::find(path, b'/');
    (&path[..len], path.get(len + 1..))
}

fn list_groups<'a>(request: &Request<'a>, after: &'a mut NameBuffer) -> Result<Route<'a>, Problem> {
    reading(request)?;
    let query = query::read(request.query, &["after", "limit"], after)?;
    Ok(Route::ListGroups { page: page(&query) })
}

fn on_group<'a>(
    request: &Request<'a>,
    group: &'a [u8],
    after: &'a mut NameBuffer,
) -> Result<Route<'a>, Problem> {
    match request.method {
        Method::Get | Method::Head => {
            plain(request)?;
            if request.headers.accepts_event_stream {
                let query = query::read(request.query, &["version"], after)?;
                // An empty id is how a client says that it has none.
                let resume = match request.headers.last_event_id {
                    Some(id) if !id.is_empty() => digits(id).map(GroupVersion),
                    _ => query.version,
                };
                return Ok(Route::Watch { group, resume });
            }
            let taken = &["after", "limit", "version", "wait", "consistent"];
            let query = query::read(request.query, taken, after)?;
            Ok(Route::GetGroup {
                group,
                page: page(&query),
                version: query.version,
                wait: query.wait,
                consistent: query.consistent,
            })
        }
        Method::Delete => {
            unconditional(request)?;
            plain(request)?;
            query::read(request.query, &[], after)?;
            Ok(Route::DeleteGroup { group })
        }
        _ => Err(Problem::method_not_allowed("GET, HEAD, DELETE")),
    }
}

#[inline]
fn on_member<'a>(
    request: &Request<'a>,
    group: &'a [u8],
    member: &'a [u8],
    after: &'a mut NameBuffer,
) -> Result<Route<'a>, Problem> {
    match request.method {
        Method::Head => {
            plain(request)?;
            query::read(request.query, &[], after)?;
            Ok(Route::Beat { group, member })
        }
        Method::Get => {
            plain(request)?;
            let query = query::read(request.query, &["after", "limit"], after)?;
            Ok(Route::BeatAndGet {
                group,
                member,
                page: page(&query),
            })
        }
        Method::Put => {
            let query = query::read(request.query, query::OF_JOINS, after)?;
            body_fits(request, CONFIG_BYTES_MAX)?;
            Ok(Route::Join {
                group,
                member,
                timeout: query.timeout,
                takeover: query.takeover,
                only_if_absent: only_if_absent(request)?,
            })
        }
        Method::Delete => {
            unconditional(request)?;
            plain(request)?;
            query::read(request.query, &[], after)?;
            Ok(Route::Leave { group, member })
        }
        _ => Err(Problem::method_not_allowed("GET, HEAD, PUT, DELETE")),
    }
}

fn on_config<'a>(
    request: &Request<'a>,
    group: &'a [u8],
    member: Option<&'a [u8]>,
) -> Result<Route<'a>, Problem> {
    no_query(request)?;
    let if_match = request.headers.if_match;
    match request.method {
        Method::Get | Method::Head => {
            plain(request)?;
            Ok(Route::GetConfig { group, member })
        }
        Method::Put => {
            no_if_none_match(request)?;
            body_fits(request, CONFIG_BYTES_MAX)?;
            Ok(Route::PutConfig {
                group,
                member,
                if_match,
            })
        }
        Method::Delete => {
            no_if_none_match(request)?;
            body_fits(request, 0)?;
            Ok(Route::DeleteConfig {
                group,
                member,
                if_match,
            })
        }
        _ => Err(Problem::method_not_allowed("GET, HEAD, PUT, DELETE")),
    }
}

/// The server's own pages, under `/-/`.
fn own_page<'a>(
    request: &Request<'a>,
    page: &[u8],
    below: Option<&[u8]>,
    text: &'a mut NameBuffer,
) -> Result<Route<'a>, Problem> {
    let route = match (page, below) {
        (b"heartbeats", None) => return batch(request),
        (b"sd", Some(b"prometheus")) => return targets(request, text),
        (b"openapi.json", None) => Route::OpenApi,
        (b"livez", None) => Route::Livez,
        (b"readyz", None) => Route::Readyz,
        (b"metrics", None) => Route::Metrics,
        (b"histograms", None) => Route::Histograms,
        (b"cluster", None) => Route::Cluster,
        (b"ui", None | Some(b"")) => ui(request, UiFile::Page),
        (b"ui", Some(b"style.css")) => ui(request, UiFile::Style),
        (b"ui", Some(b"app.js")) => ui(request, UiFile::Script),
        (b"ui", Some(b"icon.svg")) => ui(request, UiFile::Icon),
        _ => return Err(unknown_page()),
    };
    reading(request)?;
    no_query(request)?;
    Ok(route)
}

fn targets<'a>(request: &Request<'a>, text: &'a mut NameBuffer) -> Result<Route<'a>, Problem> {
    reading(request)?;
    let query = query::read(request.query, &["group", "port"], text)?;
    let Some(group) = query.group else {
        return Err(Problem::new(Code::BadParameter).detail("group must be given: ?group=NAME"));
    };
    let verdict = name::check_any(group).and_then(|()| name::check_group(group));
    Ok(Route::Targets {
        group: checked(group, verdict, "group")?,
        port: query.port,
    })
}

fn ui<'a>(request: &Request<'a>, file: UiFile) -> Route<'a> {
    let known = request.headers.if_none_match;
    Route::Ui { file, known }
}

fn batch<'a>(request: &Request<'a>) -> Result<Route<'a>, Problem> {
    if request.method != Method::Post {
        return Err(Problem::method_not_allowed("POST"));
    }
    no_query(request)?;
    unconditional(request)?;
    let media_type = request.headers.content_type.unwrap_or_default();
    let media_type = media_type[..scan::find(media_type, b';')].trim_ascii_end();
    let packed = media_type.eq_ignore_ascii_case(b"application/octet-stream");
    // What `curl --data-binary` says when it is not told otherwise is taken for text.
    let text = media_type.is_empty()
        || media_type
            .get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"text/"))
        || media_type.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    if !packed && !text {
        return Err(Problem::new(Code::UnsupportedMediaType)
            .detail("a batch is text/plain (lines) or application/octet-stream (session ids)"));
    }
    if packed && !request.body_len.is_multiple_of(16) {
        return Err(Problem::new(Code::BadBatch)
            .detail("the body is not a whole number of session ids of 16 bytes"));
    }
    Ok(Route::BatchBeats { packed })
}

/// The text of a config, from the body of a [`Route::Join`] or [`Route::PutConfig`].
///
/// # Errors
/// 415 if it is not UTF-8.
pub fn config_text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        Problem::new(Code::ConfigNotUtf8).detail(format!(
            "the first byte that is not UTF-8 is number {}",
            error.valid_up_to()
        ))
    })
}

fn group_name<'a>(raw: &'a [u8], buffer: &'a mut NameBuffer) -> Result<&'a [u8], Problem> {
    let name = name::segment(raw, buffer).map_err(|fault| bad_name("group", raw, fault))?;
    checked(name, name::check_group(name), "group")
}

#[inline]
fn checked<'a>(
    name: &'a [u8],
    verdict: Result<(), NameFault>,
    what: &'static str,
) -> Result<&'a [u8], Problem> {
    verdict
        .map(|()| name)
        .map_err(|fault| bad_name(what, name, fault))
}

#[cold]
fn bad_name(what: &'static str, raw: &[u8], fault: NameFault) -> Problem {
    let code = match fault {
        NameFault::Reserved | NameFault::Config => Code::ReservedName,
        _ => Code::BadName,
    };
    Problem::new(code).detail(format!("the {what}'s name {} {fault}", quoted(raw)))
}

#[cold]
fn unknown_page() -> Problem {
    Problem::new(Code::UnknownPage)
}

fn page<'a>(query: &Query<'a>) -> Page<'a> {
    Page {
        after: query.after,
        limit: query.limit,
    }
}

/// Only GET and HEAD, without a body.
fn reading(request: &Request<'_>) -> Result<(), Problem> {
    match request.method {
        Method::Get | Method::Head => plain(request),
        _ => Err(Problem::method_not_allowed("GET, HEAD")),
    }
}

/// Without a body, and without a precondition that would be ignored.
#[inline]
fn plain(request: &Request<'_>) -> Result<(), Problem> {
    body_fits(request, 0)?;
    if request.headers.if_match.is_some() {
        return Err(unsupported(IF_MATCH_IS_FOR_CONFIGS));
    }
    Ok(())
}

#[inline]
fn body_fits(request: &Request<'_>, bytes_max: usize) -> Result<(), Problem> {
    if request.body_len <= bytes_max {
        return Ok(());
    }
    Err(match bytes_max {
        0 => Problem::new(Code::BodyNotAllowed),
        _ => Problem::new(Code::BodyTooLarge)
            .detail(format!("{bytes_max} bytes are the most here"))
            .closing(),
    })
}

fn no_query(request: &Request<'_>) -> Result<(), Problem> {
    let mut after = NAME_BUFFER;
    query::read(request.query, &[], &mut after).map(|_| ())
}

/// A precondition we would ignore could destroy what the client meant to protect.
fn unconditional(request: &Request<'_>) -> Result<(), Problem> {
    no_if_none_match(request)?;
    match request.headers.if_match {
        Some(_) => Err(unsupported(IF_MATCH_IS_FOR_CONFIGS)),
        None => Ok(()),
    }
}

fn no_if_none_match(request: &Request<'_>) -> Result<(), Problem> {
    match request.headers.if_none_match {
        Some(_) => Err(unsupported("If-None-Match is for joins and for reading")),
        None => Ok(()),
    }
}

fn only_if_absent(request: &Request<'_>) -> Result<bool, Problem> {
    if request.headers.if_match.is_some() {
        return Err(unsupported(IF_MATCH_IS_FOR_CONFIGS));
    }
    match request.headers.if_none_match {
        Some(list) if !list.is_any() => Err(unsupported("on a join, If-None-Match can only be *")),
        list => Ok(list.is_some()),
    }
}

const IF_MATCH_IS_FOR_CONFIGS: &str = "If-Match is for changes of a config";

#[cold]
fn unsupported(detail: &'static str) -> Problem {
    Problem::new(Code::UnsupportedCondition).detail(detail)
}
