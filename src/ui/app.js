// The page at /-/ui: this server, its ensemble, and one group live.
//
// Two sources feed it. A poll every two seconds reads /-/cluster, /-/readyz and /-/metrics; an
// event stream on the chosen group (`GET /G`, text/event-stream) says who joins, leaves and
// expires. Names and configs are written by clients of the server: they go into the document as
// text nodes and attributes only, never as HTML.
"use strict";

const POLL_MS = 2000;
/** A poll that is not answered by then counts as lost. */
const ANSWER_MS = 4000;
/** Between attempts to open the stream again; doubled each time, with jitter. */
const RETRY_MS = { min: 500, max: 8000 };
const GROUPS_PER_PAGE = 50;
/** A group of more members is shown by pages; a smaller one whole, and live. */
const LIVE_MEMBERS_MAX = 200000;
const MEMBERS_PER_PAGE = 500;
/** As `.member` in style.css has it. */
const ROW_PX = 28;
/** Rows drawn above and below what is seen, so that scrolling shows no gaps. */
const ROWS_SPARE = 10;
const EVENTS_SHOWN = 200;
/** The timeline counts by the second, for an hour. */
const TIMELINE_S = 3600;
const BARS = 60;
/** How long a row is marked that has just changed. */
const FRESH_MS = 4000;
const BEATS_POINTS = 60;
/** Events that come within this are drawn together. */
const DRAW_MS = 100;

const $ = (id) => document.getElementById(id);

/** An element; children that are no nodes become text. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

function svg(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** Pairs of a term and what is said of it. */
function facts(list, pairs) {
  list.replaceChildren(...pairs.map(([term, value]) =>
    el("div", null, el("dt", null, term), value instanceof Node ? value : el("dd", null, value))));
}

/** A row of a table; a number stands to the right, and so does `{ number: text }`. */
function row(...cells) {
  return el("tr", null, ...cells.map((cell) => {
    if (typeof cell === "number") return el("td", { class: "number" }, count(cell));
    return cell.number === undefined ? el("td", null, cell) : el("td", { class: "number" }, cell.number);
  }));
}

const count = (n) => n.toLocaleString("en");
const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });
const path = (name) => "/" + encodeURIComponent(name);

function rate(perSecond) {
  if (perSecond === null) return "–";
  return perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond));
}

/** Seconds, in the unit that suits. */
function duration(seconds) {
  const digits = (n) => String(Number(n.toPrecision(3)));
  if (seconds < 1e-3) return digits(seconds * 1e6) + " µs";
  if (seconds < 1) return digits(seconds * 1e3) + " ms";
  return digits(seconds) + " s";
}

// ---------------------------------------------------------------- theme and address

/** What the address says after `#`: the `group`; a `theme`, for a screen on a wall; and `live`, to
 * show groups by pages that have more members than that. */
function place() {
  return new URLSearchParams(location.hash.slice(1));
}

function setTheme(theme) {
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = "Theme: " + theme;
  $("theme").dataset.now = theme;
}

/** Storage may be forbidden; the theme then lasts as long as the page. */
function stored(theme) {
  try {
    if (theme) localStorage.setItem("systole-theme", theme);
    return localStorage.getItem("systole-theme");
  } catch {
    return null;
  }
}

function startTheme() {
  const wanted = place().get("theme") || stored();
  setTheme(["light", "dark"].includes(wanted) ? wanted : "auto");
  $("theme").addEventListener("click", () => {
    const next = { auto: "light", light: "dark", dark: "auto" }[$("theme").dataset.now];
    setTheme(next);
    stored(next);
  });
}

// ---------------------------------------------------------------- this server

const server = {
  /** Whether the last poll was answered. */
  reached: true,
  /** Counters of the last poll and when it was, for rates. */
  last: null,
  /** Beats a second, newest last. */
  beats: [],
};

async function get(target) {
  return fetch(target, { signal: AbortSignal.timeout(ANSWER_MS), cache: "no-store" });
}

/** Text of a refusal: its code and detail, if it has them. */
async function refusal(answer) {
  const problem = await answer.json().catch(() => ({}));
  return [problem.title || "status " + answer.status, problem.detail].filter(Boolean).join(": ");
}

async function poll() {
  try {
    const [ready, metrics] = await Promise.all([get("/-/readyz"), get("/-/metrics")]);
    const back = !server.reached;
    server.reached = true;
    showReady(ready.ok ? null : await refusal(ready));
    showMetrics(parseMetrics(await metrics.text()));
    const cluster = await get("/-/cluster");
    if (cluster.ok) showCluster(await cluster.json());
    if (back) openStream();
  } catch {
    if (server.reached) closeStream();
    server.reached = false;
    server.last = null;
    showReady(null);
  }
}

/** `why` this server is not ready, or null; and whether it is there at all. */
function showReady(why) {
  const pill = $("ready");
  const cut = !server.reached;
  pill.textContent = cut ? "cut off" : why ? "not ready" : "ready";
  pill.className = "pill " + (cut ? "bad" : why ? "warn" : "good");
  const alert = $("alert");
  alert.hidden = !cut && !why;
  const text = cut
    ? "This server does not answer. What is shown is old; the page goes on trying."
    : `This server is not ready: it promises nothing at present. ${why}`;
  // Said again only when it is something else, for it is read aloud.
  if (!alert.hidden && alert.textContent !== text) alert.textContent = text;
}

function showCluster(cluster) {
  $("server").textContent =
    `server ${cluster.id}, ${cluster.role}, ${cluster.servers.length === 1 ? "alone" : `one of ${cluster.servers.length}`}`;
  document.title = `systole ${cluster.id}: ${cluster.role}`;
  facts($("ensemble"), [
    ["This server", cluster.id],
    ["Role", cluster.role],
    ["Leader", cluster.leader ?? "none"],
    ["Epoch", cluster.epoch],
    ["Last zxid", cluster.last_zxid],
    ["Applied zxid", cluster.applied_zxid],
    ["Lease", `${cluster.lease.held ? "held" : "lapsed"}, ${duration(cluster.lease.length_ms / 1000)}`],
  ]);
  $("servers").replaceChildren(...cluster.servers.map((one) => {
    const leads = one.id === cluster.leader ? ", leads" : "";
    const state = el("span", { class: one.state === "lost" ? "bad" : "good" }, one.state + leads);
    return row({ number: one.id }, one.endpoint, state);
  }));
}

/** The lines `name{key="value",…} number` of Prometheus text: name → [[labels, number]]. */
function parseMetrics(text) {
  const found = new Map();
  for (const [, name, labels, value] of text.matchAll(/^(\w+)(?:\{(.*)\})? (\S+)$/gm)) {
    const pairs = Object.fromEntries(
      [...(labels || "").matchAll(/(\w+)="([^"]*)"/g)].map(([, key, label]) => [key, label]));
    if (!found.has(name)) found.set(name, []);
    found.get(name).push([pairs, Number(value)]);
  }
  return found;
}

function showMetrics(metrics) {
  const now = performance.now();
  const byShard = (name) => (metrics.get(name) || []).map(([, value]) => value);
  const one = (name) => (metrics.get(name) || [[null, 0]])[0][1];
  const beats = byShard("systole_heartbeats_total");
  const ended = one("systole_sessions_expired_total");
  const created = one("systole_sessions_created_total");
  const last = server.last;
  const perSecond = (value, before) =>
    before === undefined ? null : Math.max(0, value - before) / ((now - last.at) / 1000);
  const rates = beats.map((value, shard) => perSecond(value, last?.beats[shard]));
  const known = rates.length > 0 && !rates.includes(null);
  const sum = known ? rates.reduce((a, b) => a + b, 0) : null;
  $("beats").textContent = rate(sum);
  if (known) server.beats = [...server.beats, sum].slice(-BEATS_POINTS);
  drawBeats();
  const sessions = byShard("systole_sessions");
  const connections = byShard("systole_connections");
  $("shards").replaceChildren(...sessions.map((held, shard) =>
    row({ number: shard }, held, connections[shard], { number: rate(rates[shard]) })));
  showLatencies(metrics);
  facts($("totals"), [
    ["Groups", count(one("systole_groups"))],
    ["Active members", count(one("systole_members_active"))],
    ["Inactive members", count(one("systole_members_inactive"))],
    ["Joins/s", rate(perSecond(created, last?.created))],
    ["Expiries/s", rate(perSecond(ended, last?.ended))],
  ]);
  $("groups-count").textContent = count(one("systole_groups"));
  server.last = { at: now, beats, ended, created };
}

function drawBeats() {
  const points = server.beats;
  const top = Math.max(1, ...points);
  const x = (i) => (300 * (BEATS_POINTS - points.length + i)) / (BEATS_POINTS - 1);
  const line = points.map((value, i) => `${x(i).toFixed(1)} ${(38 - (36 * value) / top).toFixed(1)}`);
  $("beats-line").replaceChildren(svg("path", { d: line.length > 1 ? "M" + line.join("L") : "M0 0" }));
  $("beats-line").setAttribute("aria-label",
    `Beats a second in the last two minutes, at most ${rate(top)}`);
}

const LATENCIES = [
  ["systole_heartbeat_seconds", "Heartbeat"],
  ["systole_expiry_lateness_seconds", "Expiry lateness"],
  ["systole_log_sync_seconds", "Log sync"],
];
const QUANTILES = ["0.5", "0.9", "0.99", "0.999"];

function showLatencies(metrics) {
  $("latency-head").replaceChildren(
    el("th", { scope: "col" }, "Of"),
    ...QUANTILES.map((q) => el("th", { scope: "col", class: "number" }, "p" + Number((q * 100).toFixed(2)))),
    el("th", { scope: "col", class: "number" }, "Count"));
  $("latencies").replaceChildren(...LATENCIES.map(([name, label]) => {
    const total = metrics.get(name + "_count")?.[0][1] || 0;
    const at = (q) => metrics.get(name)?.find(([labels]) => labels.quantile === q)?.[1];
    return row(label, ...QUANTILES.map((q) => ({ number: total ? duration(at(q)) : "–" })), total);
  }));
}

// ---------------------------------------------------------------- the list of groups

const list = { after: null, prefix: "", last: null };

/** A name's bytes, escaped. */
const escaped = (bytes) => [...bytes].map((b) => "%" + b.toString(16).padStart(2, "0")).join("");
const bytesOf = (text) => new TextEncoder().encode(text);

/** The cursor, escaped, after which the names begin that begin with `prefix`: its last byte less
 * one, then a byte that no name holds. Names are listed in the order of their bytes. */
function before(prefix) {
  const bytes = bytesOf(prefix);
  if (bytes.length === 0) return "";
  bytes[bytes.length - 1] -= 1;
  return escaped(bytes) + (bytes.length < 255 ? "%ff" : "");
}

async function listGroups() {
  const { prefix, after } = list;
  const cursor = after === null ? before(prefix) : escaped(bytesOf(after));
  let groups;
  try {
    const answer = await get(`/?after=${cursor}&limit=${GROUPS_PER_PAGE + 1}`);
    if (!answer.ok) return;
    groups = (await answer.json()).groups;
  } catch {
    return; // The poll says that the server is cut off.
  }
  if (prefix !== list.prefix || after !== list.after) return;
  groups = groups.filter((group) => group.name.startsWith(prefix));
  const shown = groups.slice(0, GROUPS_PER_PAGE);
  list.last = shown.at(-1)?.name ?? null;
  $("groups-next").disabled = groups.length <= GROUPS_PER_PAGE;
  $("groups-first").disabled = after === null;
  $("groups-none").hidden = shown.length > 0;
  $("groups-none").textContent = prefix
    ? "No group’s name begins so." : "There are no groups. One appears when someone joins it.";
  const focused = document.activeElement?.dataset?.group;
  $("groups").replaceChildren(...shown.map(groupLink));
  // The links are new ones; whoever was on one still is.
  if (focused !== undefined) {
    [...$("groups").querySelectorAll("a")].find((a) => a.dataset.group === focused)?.focus();
  }
}

function groupLink(group) {
  const title = `${group.active} active, ${group.inactive} inactive, version ${group.version}`;
  const link = el("a", { href: hashOf(group.name), title },
    el("span", { class: "name" }, group.name),
    el("span", { class: "muted count" }, count(group.active)));
  link.dataset.group = group.name;
  if (group.name === watched.group) link.setAttribute("aria-current", "true");
  return el("li", null, link);
}

function hashOf(group) {
  const next = place();
  next.set("group", group);
  return "#" + next;
}

function startGroups() {
  $("group-search").addEventListener("input", () => {
    Object.assign(list, { prefix: $("group-search").value, after: null });
    listGroups();
  });
  $("groups-first").addEventListener("click", () => { list.after = null; listGroups(); });
  $("groups-next").addEventListener("click", () => { list.after = list.last; listGroups(); });
}

// ---------------------------------------------------------------- the group that is watched

/** Everything known of the chosen group. */
const watched = {
  group: null,
  stream: null,
  retry: { timer: 0, ms: RETRY_MS.min },
  /** The last id of the stream: where to go on after a cut. */
  lastId: "",
  version: null,
  config: null,
  /** Whether there is such a group; null before the server has said. */
  exists: null,
  /** Name → { config, active, session, changed }. */
  members: new Map(),
  /** The members' names, sorted. */
  names: [],
  active: 0,
  inactive: 0,
  /** What the member list shows: names that pass the search. */
  shown: [],
  /** The member the list stands on. */
  chosen: null,
  /** If there are too many to be held: the name the page comes after, whether there is another
   * page, and the group's version that it shows. */
  paged: null,
  events: [],
  /** Second → counts by kind. */
  timeline: new Map(),
  since: 0,
};

/** Turns to the group that the address names. */
function choose() {
  const group = place().get("group");
  if (group === watched.group) return;
  closeStream();
  Object.assign(watched, {
    group, lastId: "", version: null, config: null, exists: null, members: new Map(), names: [],
    active: 0, inactive: 0, shown: [], chosen: null, paged: null, events: [],
    timeline: new Map(), since: Date.now(),
  });
  $("member-search").value = "";
  $("members").scrollTop = 0;
  $("group").hidden = group === null;
  $("group-title").textContent = group ?? "No group chosen";
  $("events-since").textContent = `since ${clock(watched.since)}`;
  for (const link of $("groups").querySelectorAll("a")) {
    if (link.dataset.group === group) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  draw();
  openStream();
}

/** Learns how large the group is, and opens its stream: with a snapshot if the group can be
 * shown whole, else with the events after its version alone. */
async function openStream() {
  closeStream();
  const { group } = watched;
  if (group === null) return;
  showStream("connecting");
  if (watched.lastId === "") {
    try {
      await measure(group);
    } catch {
      return retryStream();
    }
    if (group !== watched.group || watched.stream) return;
  }
  const from = watched.lastId === "" ? "" : `?version=${watched.lastId}`;
  const stream = new EventSource(path(group) + from);
  watched.stream = stream;
  stream.onopen = () => {
    watched.retry.ms = RETRY_MS.min;
    showStream("live");
  };
  // The browser connects again by itself, with the last id, unless the server refused.
  stream.onerror = () => {
    showStream("reconnecting");
    if (stream.readyState === EventSource.CLOSED) retryStream();
  };
  for (const kind of ["snapshot", "join", "leave", "expire", "config", "remove"]) {
    stream.addEventListener(kind, (event) => {
      if (event.lastEventId !== "") watched.lastId = event.lastEventId;
      takeEvent(kind, JSON.parse(event.data));
    });
  }
}

/** Looks the group up in the list. If there is none, its stream waits until there is one. */
async function measure(group) {
  const answer = await get(`/?after=${before(group)}&limit=1`);
  if (!answer.ok) throw new Error(await refusal(answer));
  const [found] = (await answer.json()).groups;
  if (group !== watched.group) return;
  if (found?.name !== group) {
    watched.exists = false;
    return drawSoon();
  }
  const most = Number(place().get("live")) || LIVE_MEMBERS_MAX;
  if (found.active + found.inactive <= most) return;
  await turnPage(null, group);
  if (group !== watched.group) return;
  const { version } = watched.paged;
  Object.assign(watched, { lastId: String(version), version, exists: true });
}

function closeStream() {
  clearTimeout(watched.retry.timer);
  watched.stream?.close();
  watched.stream = null;
  showStream(watched.group === null ? null : "cut off");
}

function retryStream() {
  closeStream();
  const { retry } = watched;
  showStream("reconnecting");
  // Refused again and again: perhaps the server has never seen the version to go on from, as
  // after a restore. Then what there is counts.
  if (retry.ms >= RETRY_MS.max / 2) watched.lastId = "";
  retry.timer = setTimeout(openStream, retry.ms * (0.5 + Math.random()));
  retry.ms = Math.min(retry.ms * 2, RETRY_MS.max);
}

function showStream(state) {
  const pill = $("stream");
  pill.hidden = state === null;
  pill.textContent = state ?? "";
  pill.className = "pill " + (state === "live" ? "good" : state === "cut off" ? "bad" : "warn");
}

/** One event of the stream. After a cut some may come twice; they change nothing then. */
function takeEvent(kind, data) {
  if (kind === "snapshot") {
    takeSnapshot(data);
  } else {
    const known = watched.version !== null && data.version < watched.version;
    watched.version = data.version;
    watched.exists = kind !== "remove";
    if (kind === "remove") forgetMembers();
    else if (kind === "config" && data.member === null) watched.config = data.config;
    else applyTo(kind, data);
    if (!known) record(kind, data);
    // The group's next life may count from 0.
    if (kind === "remove") Object.assign(watched, { version: null, lastId: "" });
  }
  drawSoon();
}

function forgetMembers() {
  watched.members.clear();
  Object.assign(watched, { names: [], active: 0, inactive: 0, config: null });
}

/** The whole group, at the beginning or when the server no longer knows what lay between. */
function takeSnapshot(data) {
  const { active_members: active, inactive_members: inactive } = data;
  Object.assign(watched, {
    version: data.version, exists: true, config: data.config,
    active: active.length, inactive: inactive.length,
  });
  if (!watched.paged) takeMembers(active, inactive);
}

function takeMembers(active, inactive) {
  const members = new Map();
  for (const [some, isActive] of [[active, true], [inactive, false]]) {
    for (const member of some) {
      const [name] = Object.keys(member);
      const session = isActive ? watched.members.get(name)?.session : undefined;
      members.set(name, { config: member[name], active: isActive, session, changed: 0 });
    }
  }
  watched.members = members;
  watched.names = [...members.keys()].sort(order);
}

const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

function applyTo(kind, { member: name, config, session, inactive, version }) {
  if (watched.paged && version <= watched.paged.version) return; // The page shows it already.
  const old = watched.members.get(name);
  const next = { config: old?.config ?? null, active: old?.active ?? false, session: old?.session, changed: Date.now() };
  if (kind === "join") Object.assign(next, { active: true, session, config });
  else if (kind === "config") next.config = config;
  else Object.assign(next, { active: false, session: undefined });
  const stays = kind === "leave" || kind === "expire" ? inactive : next.active || next.config !== null;
  if (watched.paged) return applyToPage(kind, name, stays ? next : null);
  if (old) watched[old.active ? "active" : "inactive"] -= 1;
  if (stays) watched[next.active ? "active" : "inactive"] += 1;
  put(name, stays ? next : null);
}

/** Of a group that is not held whole, events tell the counts but for one case: whether one who
 * joins or is configured was there before. The next page turned sets them right. */
function applyToPage(kind, name, next) {
  const ends = kind === "leave" || kind === "expire";
  if (kind === "join") watched.active += 1;
  if (ends) watched.active -= 1;
  if (ends && next) watched.inactive += 1;
  if (watched.members.has(name)) put(name, next);
}

/** Sets or removes one member; keeps the names sorted. */
function put(name, member) {
  const { names, members } = watched;
  if (members.has(name) !== (member !== null)) {
    let [low, high] = [0, names.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (order(names[middle], name) < 0) low = middle + 1;
      else high = middle;
    }
    names.splice(low, member ? 0 : 1, ...(member ? [name] : []));
  }
  if (member) members.set(name, member);
  else members.delete(name);
}

/** Fetches a page of a group too large to be held. */
async function turnPage(after, group = watched.group) {
  const prefix = $("member-search").value;
  const cursor = after === null ? before(prefix) : escaped(bytesOf(after));
  const answer = await get(`${path(group)}?after=${cursor}&limit=${MEMBERS_PER_PAGE}`);
  if (!answer.ok) throw new Error(await refusal(answer));
  const page = await answer.json();
  if (group !== watched.group || prefix !== $("member-search").value) return;
  Object.assign(watched, { active: page.active_count, inactive: page.inactive_count, config: page.config });
  takeMembers(page.active_members, page.inactive_members);
  const found = watched.names.filter((name) => name.startsWith(prefix));
  const more = page.truncated && found.length === watched.names.length;
  watched.paged = { after, more, version: Number(answer.headers.get("x-group-version")) };
  watched.names = found;
  $("members").scrollTop = 0;
  drawSoon();
}

/** Keeps an event for the list and the timeline. */
function record(kind, data) {
  const at = Date.now();
  watched.events.unshift({ kind, at, member: data.member, version: data.version });
  watched.events.length = Math.min(watched.events.length, EVENTS_SHOWN);
  const second = Math.floor(at / 1000);
  const counts = watched.timeline.get(second) || { join: 0, leave: 0, expire: 0 };
  if (kind in counts) counts[kind] += 1;
  watched.timeline.set(second, counts);
  for (const old of watched.timeline.keys()) {
    if (old >= second - TIMELINE_S) break; // A map goes in the order of insertion.
    watched.timeline.delete(old);
  }
}

// ---------------------------------------------------------------- drawing the group

/** Many events make one drawing; a hidden page is drawn when it is seen again. */
function drawSoon() {
  if (watched.drawing || document.hidden) return;
  watched.drawing = true;
  setTimeout(() => { watched.drawing = false; draw(); }, DRAW_MS);
}

function draw() {
  if (watched.group === null) {
    $("group-hint").textContent = "Choose a group to see its members come and go.";
    $("group-hint").hidden = false;
    return;
  }
  $("group-hint").hidden = watched.exists === true;
  $("group-hint").textContent = watched.exists === null
    ? "Waiting for the server to tell of this group."
    : watched.events[0]?.kind === "remove"
      ? "This group has been removed. It appears again when someone joins."
      : "There is no such group yet. It appears when someone joins.";
  facts($("group-facts"), [
    ["Active", count(watched.active)],
    ["Inactive", count(watched.inactive)],
    ["Version", watched.version ?? "–"],
  ]);
  $("group-config").hidden = watched.config === null;
  $("group-config-text").textContent = shape(watched.config);
  // The list is asked for less often.
  const listed = $("groups").querySelector("[aria-current] .count");
  if (listed && watched.version !== null) listed.textContent = count(watched.active);
  filter();
  drawMembers();
  drawMember();
  drawEvents();
  drawTimeline();
}

/** A config as text: JSON with line breaks, or the string that it is. */
function shape(config) {
  if (config === null || config === undefined) return "";
  return typeof config === "string" ? config : JSON.stringify(config, null, 2);
}

/** Finds the names that the search and the state let through. */
function filter() {
  const text = $("member-search").value.toLowerCase();
  const state = $("member-state").value;
  const plain = state === "all" && (text === "" || watched.paged);
  if (plain) {
    watched.shown = watched.names;
  } else {
    watched.shown = watched.names.filter((name) =>
      (watched.paged || name.toLowerCase().includes(text))
      && (state === "all" || watched.members.get(name).active === (state === "active")));
  }
  const [shown, all] = [watched.shown.length, watched.active + watched.inactive];
  $("members-count").textContent = shown === all ? count(all) : `${count(shown)} of ${count(all)}`;
  $("members-space").style.height = `${shown * ROW_PX}px`;
  $("pager").hidden = !watched.paged;
  if (watched.paged) {
    $("page-first").disabled = watched.paged.after === null;
    $("page-next").disabled = !watched.paged.more;
    $("pager-note").textContent = "Too many to show at once: shown by pages, searched by how names begin.";
  }
}

/** Draws the rows that are in sight, and no others. */
function drawMembers() {
  const box = $("members");
  const first = Math.max(0, Math.floor(box.scrollTop / ROW_PX) - ROWS_SPARE);
  const last = Math.min(watched.shown.length,
    Math.ceil((box.scrollTop + box.clientHeight) / ROW_PX) + ROWS_SPARE);
  const rows = [];
  for (let i = first; i < last; i += 1) {
    const name = watched.shown[i];
    // One who has gone since the list was last filtered leaves it when all is drawn again, soon.
    if (watched.members.has(name)) rows.push(memberRow(name, i));
  }
  // What has not changed stays, with what is selected in it and said of it.
  const drawn = $("members-space").children;
  const same = rows.length === drawn.length && rows.every((one, i) => one.isEqualNode(drawn[i]));
  if (!same) $("members-space").replaceChildren(...rows);
  const chosen = rows.find((one) => one.getAttribute("aria-selected") === "true");
  if (chosen) box.setAttribute("aria-activedescendant", chosen.id);
  else box.removeAttribute("aria-activedescendant");
}

function memberRow(name, index) {
  const member = watched.members.get(name);
  const fresh = Date.now() - member.changed < FRESH_MS ? " fresh" : "";
  const state = member.active ? "active" : "inactive";
  const node = el("div", {
    class: `member${fresh}${member.active ? "" : " gone"}`,
    role: "option", id: `member-${index}`, "aria-selected": String(name === watched.chosen),
    "aria-posinset": index + 1, "aria-setsize": watched.shown.length,
  },
  el("span", { class: `state ${member.active ? "good" : "muted"}` }, state),
  el("span", { class: "name" }, name),
  el("span", { class: "config" }, member.config === null ? "" : brief(member.config)));
  node.style.top = `${index * ROW_PX}px`;
  node.dataset.member = name;
  return node;
}

/** The beginning of a config, on one line. */
function brief(config) {
  return (typeof config === "string" ? config : JSON.stringify(config)).slice(0, 120);
}

/** The member the list stands on, in full. */
function drawMember() {
  const name = watched.chosen;
  const member = watched.members.get(name);
  $("member").hidden = name === null;
  if (name === null) return;
  $("member-name").textContent = name;
  facts($("member-facts"), member ? [
    ["State", member.active ? "active" : "inactive"],
    // Documents do not tell the session; events do.
    ...(member.session ? [["Session", member.session]] : []),
  ] : [["State", "gone"]]);
  $("member-config").hidden = !member || member.config === null;
  $("member-config").textContent = shape(member?.config);
}

const VERBS = { join: "joined", leave: "left", expire: "expired", config: "config", remove: "removed" };
const TONES = { join: "good", expire: "bad" };

function drawEvents() {
  for (const event of watched.events) event.node ??= eventItem(event);
  $("events").replaceChildren(...watched.events.map((event) => event.node));
}

function eventItem(event) {
  return el("li", null,
    el("time", { class: "muted", datetime: new Date(event.at).toISOString() }, clock(event.at)),
    el("span", { class: `kind ${TONES[event.kind] || "muted"}` }, VERBS[event.kind]),
    el("span", { class: "name" }, event.member ?? "(the group)"),
    el("span", { class: "muted" }, `v${event.version}`));
}

/** Joins above the line, expiries and leaves below it, one bar for a 60th of the time shown. */
function drawTimeline() {
  const span = Number($("window").value);
  const step = span / BARS;
  const now = Math.floor(Date.now() / 1000);
  const end = (Math.floor(now / step) + 1) * step;
  const bars = Array.from({ length: BARS }, () => ({ join: 0, leave: 0, expire: 0 }));
  const sums = { join: 0, leave: 0, expire: 0 };
  for (const [second, counts] of watched.timeline) {
    const bar = bars[BARS - 1 - Math.floor((end - 1 - second) / step)];
    for (const kind of bar ? Object.keys(sums) : []) {
      bar[kind] += counts[kind];
      sums[kind] += counts[kind];
    }
  }
  const top = Math.max(1, ...bars.map((bar) => Math.max(bar.join, bar.expire + bar.leave)));
  const high = (n) => (42 * n) / top;
  const shapes = [svg("line", { x1: 0, x2: 600, y1: 45, y2: 45 })];
  const draw = (kind, i, y, height) => height > 0
    && shapes.push(svg("rect", { class: kind, x: i * 10 + 1, width: 8, y, height }));
  bars.forEach((bar, i) => {
    draw("join", i, 45 - high(bar.join), high(bar.join));
    draw("expire", i, 45, high(bar.expire));
    draw("leave", i, 45 + high(bar.expire), high(bar.leave));
  });
  $("timeline").replaceChildren(...shapes);
  const said = `${count(sums.join)} joins, ${count(sums.expire)} expiries, ${count(sums.leave)} leaves`;
  $("timeline").setAttribute("aria-label", `In the ${$("window").selectedOptions[0].text}: ${said}`);
  $("axis-from").textContent = clock((end - span) * 1000);
  const quiet = sums.join + sums.expire + sums.leave === 0;
  $("timeline-peak").textContent = quiet ? "" : `highest bar: ${count(top)} in ${duration(step)}`;
  const entry = (kind, what) => el("li", null, el("i", { class: kind }), `${count(sums[kind])} ${what}`);
  $("legend").replaceChildren(
    entry("join", "joins"), entry("expire", "expiries"), entry("leave", "leaves"));
}

/** Moves through the list by keys, as in any list box. */
function onKey(event) {
  const at = watched.shown.indexOf(watched.chosen);
  const page = Math.max(1, Math.floor($("members").clientHeight / ROW_PX) - 1);
  const to = {
    ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, PageDown: at + page, PageUp: at - page,
    Home: 0, End: watched.shown.length - 1,
  }[event.key];
  if (to === undefined || watched.shown.length === 0) return;
  event.preventDefault();
  const index = Math.min(Math.max(to, 0), watched.shown.length - 1);
  watched.chosen = watched.shown[index];
  const box = $("members");
  const top = index * ROW_PX;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + ROW_PX > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW_PX - box.clientHeight;
  drawMembers();
  drawMember();
}

function startGroup() {
  $("members").addEventListener("scroll", drawMembers, { passive: true });
  $("members").addEventListener("keydown", onKey);
  $("members").addEventListener("click", (event) => {
    const name = event.target.closest(".member")?.dataset.member;
    if (name === undefined) return;
    watched.chosen = name;
    drawMembers();
    drawMember();
  });
  $("member-state").addEventListener("change", draw);
  $("window").addEventListener("change", drawTimeline);
  $("member-search").addEventListener("input", () => {
    $("members").scrollTop = 0;
    if (watched.paged) turnPage(null).catch(() => {});
    else draw();
  });
  $("page-first").addEventListener("click", () => turnPage(null).catch(() => {}));
  $("page-next").addEventListener("click", () => turnPage(watched.names.at(-1)).catch(() => {}));
  // As a link it would take the group out of the address.
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("members").focus();
  });
  addEventListener("hashchange", choose);
  addEventListener("resize", drawMembers);
  document.addEventListener("visibilitychange", drawSoon);
}

// ---------------------------------------------------------------- the beat of the page

/** Calls `task` again and again, each time `ms` after it has ended; not while the page is hidden. */
async function every(ms, task) {
  for (;;) {
    if (!document.hidden) await task();
    await new Promise((done) => setTimeout(done, ms));
  }
}

startTheme();
startGroups();
startGroup();
choose();
every(POLL_MS, poll);
every(2 * POLL_MS, listGroups);
// The timeline moves though nothing happens, and what was fresh is so no longer.
every(1000, () => { if (watched.group !== null) { drawTimeline(); drawMembers(); } });
