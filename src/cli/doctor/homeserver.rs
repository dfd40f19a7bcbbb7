//! The hops around the homeserver: how clients find it and the calls, delayed events, OpenID look-ups, federation, and
//! with a configuration the registration and the way back to weir.

use reqwest::Method;
use serde_json::{Value, json};

use super::report::Report;
use super::web::{Answer, Trouble, Web};
use crate::config::{Feed, HomeserverConfig};

/// Where clients find the list of transports, oldest name last.
const TRANSPORTS: [&str; 2] =
    ["/_matrix/client/v1/rtc/transports", "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"];
/// How often delayed events are asked for: workers that do not know them are found among those that do.
const DELAYED_TRIES: usize = 8;
/// A delay nobody has; asking for it shows whether the path is served, and changes nothing.
const DELAYED: &str = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/weir-doctor/restart";
/// Seconds clocks may differ: tokens are good a little before and after.
const CLOCK: i64 = 60;

/// What was learnt on the way.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Base URL of the client API.
    pub(super) base: Option<String>,
    /// Base URL of the call service.
    pub(super) service: Option<String>,
}

/// Look at `name` as clients do.
pub(super) async fn look(web: &Web, name: &str, configured: Option<&HomeserverConfig>, report: &mut Report) -> Found {
    let mut found = Found::default();
    let well_known = well_known(web, name, report).await;
    if let Some(base) = well_known.as_ref().and_then(base_url) {
        found.base = Some(base);
    } else if let Some(home) = configured {
        found.base = Some(home.client_api_url.trim_end_matches('/').to_owned());
    }
    if let Some(base) = &found.base {
        client_api(web, base, report).await;
        delayed_events(web, base, report).await;
    }
    found.service = transports(web, found.base.as_deref(), well_known.as_ref(), report).await;
    openid(web, name, configured, report).await;
    found
}

async fn well_known(web: &Web, name: &str, report: &mut Report) -> Option<Value> {
    const HOP: &str = "well-known";
    let url = format!("https://{name}/.well-known/matrix/client");
    let answer = match web.get(&url).await {
        Ok(answer) => answer,
        Err(trouble) => {
            report.bad(HOP, format!("{url}: {}", trouble.words()), trouble.mend(&format!("the web server of {name}")));
            return None;
        }
    };
    clock(HOP, name, &answer, report);
    certificate(name, &answer, report);
    if answer.status != 200 {
        let location = answer.location.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
        report.bad(
            HOP,
            format!("{url} answers {}{location}", answer.status),
            format!("serve the file at {url} itself, with status 200"),
        );
        return None;
    }
    let Some(json) = answer.json() else {
        report.bad(HOP, format!("{url} is no JSON"), "correct the file: clients ignore it as it is");
        return None;
    };
    if base_url(&json).is_none() {
        report.bad(
            HOP,
            format!("{url} names no homeserver"),
            "add \"m.homeserver\": {\"base_url\": \"https://...\"}, where clients reach the homeserver",
        );
        return Some(json);
    }
    if !answer.allows_all_origins {
        report.bad(
            HOP,
            format!("{url} has no CORS header: browsers hide it from web clients"),
            "serve it with `Access-Control-Allow-Origin: *`",
        );
        return Some(json);
    }
    report.ok(HOP, url);
    Some(json)
}

fn base_url(well_known: &Value) -> Option<String> {
    let url = well_known.get("m.homeserver")?.get("base_url")?.as_str()?;
    url.starts_with("http").then(|| url.trim_end_matches('/').to_owned())
}

async fn client_api(web: &Web, base: &str, report: &mut Report) {
    const HOP: &str = "client-api";
    let url = format!("{base}/_matrix/client/versions");
    let answer = match web.get(&url).await {
        Ok(answer) => answer,
        Err(trouble) => return report.bad(HOP, format!("{url}: {}", trouble.words()), trouble.mend("the homeserver")),
    };
    clock("client-clock", "the homeserver", &answer, report);
    let json = answer.json().filter(|json| answer.status == 200 && json.get("versions").is_some());
    let Some(json) = json else {
        return report.bad(
            HOP,
            format!("{url} answers {}, not as a homeserver does", answer.status),
            "let the proxy hand /_matrix to the homeserver, and `base_url` point there",
        );
    };
    report.ok(HOP, url);
    let features = json.get("unstable_features");
    let has = |name: &str| features.and_then(|it| it.get(name)).and_then(Value::as_bool);
    if has("org.matrix.msc4140") == Some(false) {
        report.bad(
            "delayed-leave",
            "delayed events are switched off: who loses the connection stays in the call for hours",
            "Synapse: set `max_event_delay_duration: 24h`; others: switch MSC4140 on",
        );
    }
}

async fn delayed_events(web: &Web, base: &str, report: &mut Report) {
    const HOP: &str = "delayed-events";
    let url = format!("{base}{DELAYED}");
    let mut unknown = 0;
    for _ in 0..DELAYED_TRIES {
        let Ok(answer) = web.post(&url, "{}").await else { return };
        // A delay nobody has is M_NOT_FOUND; a path nobody serves is something else.
        let served = answer.errcode().is_some_and(|code| code != "M_UNRECOGNIZED");
        unknown += usize::from(answer.status == 404 && !served);
    }
    match unknown {
        0 => report.ok(HOP, "the homeserver serves delayed events"),
        DELAYED_TRIES => report.bad(
            HOP,
            "the homeserver answers delayed events with 404: memberships of lost devices stay for hours",
            "switch MSC4140 on, and let the proxy hand /_matrix/client/unstable/org.matrix.msc4140 to the main process",
        ),
        some => report.bad(
            HOP,
            format!("{some} of {DELAYED_TRIES} requests for delayed events are answered with 404: some workers do not know them"),
            "let the proxy hand /_matrix/client/unstable/org.matrix.msc4140 to workers that serve it, or the main process",
        ),
    }
}

/// Where calls are, by the homeserver and by the file.
async fn transports(web: &Web, base: Option<&str>, well_known: Option<&Value>, report: &mut Report) -> Option<String> {
    const HOP: &str = "transports";
    let mut listed = None;
    for path in TRANSPORTS {
        let Some(base) = base else { break };
        let Ok(answer) = web.get(&format!("{base}{path}")).await else { continue };
        // Some homeservers want to know who asks: then the path is there.
        let Some(json) = answer.json().filter(|_| answer.status == 200) else { continue };
        listed = json.get("rtc_transports").cloned();
        break;
    }
    let foci = well_known.and_then(|json| json.get("org.matrix.msc4143.rtc_foci")).cloned();
    let mend = "add {\"type\": \"livekit\", \"livekit_service_url\": \"https://...\"} as `weir registration` says: to \
                \"org.matrix.msc4143.rtc_foci\" of /.well-known/matrix/client, and to the homeserver's transports";
    let (from, list) = match (foci, listed) {
        (Some(foci), _) => ("the well-known file", foci),
        (None, Some(listed)) => ("the homeserver", listed),
        (None, None) => {
            report.bad(HOP, "neither the well-known file nor the homeserver says where calls are", mend);
            return None;
        }
    };
    let entries = list.as_array().cloned().unwrap_or_default();
    let livekit = entries.iter().find(|entry| entry.get("type").and_then(Value::as_str) == Some("livekit"));
    let Some(entry) = livekit else {
        report.bad(HOP, format!("{from} lists no transport of type livekit"), mend);
        return None;
    };
    let url = entry.get("livekit_service_url").and_then(Value::as_str).unwrap_or_default();
    if !url.starts_with("https://") {
        report.bad(
            HOP,
            format!("{from} gives `{url}` as livekit_service_url: browsers take https only"),
            "give the https URL weir is reached by",
        );
        return None;
    }
    report.ok(HOP, format!("calls are at {url}, says {from}"));
    Some(url.trim_end_matches('/').to_owned())
}

/// Whether weir, and any other call service, can ask the homeserver whose token somebody shows.
async fn openid(web: &Web, name: &str, configured: Option<&HomeserverConfig>, report: &mut Report) {
    const LOOKUP: &str = "/_matrix/federation/v1/openid/userinfo?access_token=weir-doctor";
    let judge = |hop: &'static str, url: &str, answer: Result<Answer, Trouble>, report: &mut Report| {
        match answer {
        Ok(answer) if answer.status == 401 => report.ok(hop, format!("{url} answers OpenID look-ups")),
        Ok(answer) => report.bad(
            hop,
            format!("{url} answers OpenID look-ups with {}: nobody can prove who they are", answer.status),
            "serve the resource `openid` or `federation` on that listener, and let the proxy hand /_matrix/federation to it",
        ),
        Err(trouble) => report.bad(hop, format!("{url}: {}", trouble.words()), trouble.mend("the homeserver")),
    }
    };
    if let Some(home) = configured {
        let base = home.openid_base().trim_end_matches('/');
        judge("openid", base, web.get(&format!("{base}{LOOKUP}")).await, report);
    }
    let base = federation(web, name).await;
    match web.get(&format!("{base}/_matrix/federation/v1/version")).await {
        Ok(answer) if answer.status == 200 => report.ok("federation", format!("{base} is reachable")),
        Ok(answer) => report.warn(
            "federation",
            format!("{base}/_matrix/federation/v1/version answers {}", answer.status),
            "let the proxy hand /_matrix/federation to the homeserver, or let /.well-known/matrix/server name another \
             place; without it people of other homeservers have no calls with yours",
        ),
        Err(trouble) => report.warn(
            "federation",
            format!("{base}: {}", trouble.words()),
            format!(
                "{}; port 8448, or what /.well-known/matrix/server names; without it people of other homeservers have \
                 no calls with yours",
                trouble.mend("the homeserver")
            ),
        ),
    }
    if report.is_ok("federation") {
        judge("openid-others", &base, web.get(&format!("{base}{LOOKUP}")).await, report);
    }
}

/// Where a server's federation API is, without service records: those are the exception.
async fn federation(web: &Web, name: &str) -> String {
    let answer = web.get(&format!("https://{name}/.well-known/matrix/server")).await;
    let delegated = answer.ok().filter(|answer| answer.status == 200).and_then(|answer| {
        let json = answer.json()?;
        Some(json.get("m.server")?.as_str()?.to_owned())
    });
    let server = delegated.unwrap_or_else(|| name.to_owned());
    let has_port = server.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    if has_port { format!("https://{server}") } else { format!("https://{server}:8448") }
}

/// With the tokens of the configuration: whether the homeserver knows weir, and reaches it.
pub(super) async fn registration(web: &Web, home: &HomeserverConfig, report: &mut Report) {
    if home.feed == Feed::Openid {
        return report.skip("registration", "`feed: openid`: the homeserver does not know weir, and need not");
    }
    let base = home.client_api_url.trim_end_matches('/');
    let with_token = |method, url: String| web.request(method, &url).bearer_auth(home.as_token.expose());
    let answer = web.send(with_token(Method::GET, format!("{base}/_matrix/client/v3/account/whoami"))).await;
    match answer {
        Ok(answer) if answer.status == 200 => report.ok("registration", "the homeserver knows weir's as_token"),
        Ok(answer) => {
            return report.bad(
                "registration",
                format!(
                    "the homeserver answers {} to weir's as_token: it does not know the registration",
                    answer.status
                ),
                "put the file of `weir registration` where the homeserver reads it, with the very tokens of weir's \
                 configuration, and restart the homeserver",
            );
        }
        Err(trouble) => {
            let found = format!("`client_api_url` {base}: {}", trouble.words());
            return report.bad("registration", found, "correct `client_api_url`, or start the homeserver");
        }
    }
    if home.feed != Feed::Full {
        return report.skip("push", "`feed: joined`: nothing is pushed");
    }
    let url = format!("{base}/_matrix/client/v1/appservice/{}/ping", home.registration_id());
    let request = with_token(Method::POST, url).header("content-type", "application/json");
    let body = json!({ "transaction_id": "weir-doctor" }).to_string();
    pushed(web.send(request.body(body)).await, home, report);
}

/// What the homeserver found when it asked weir.
fn pushed(answer: Result<Answer, Trouble>, home: &HomeserverConfig, report: &mut Report) {
    const HOP: &str = "push";
    let answer = match answer {
        Ok(answer) => answer,
        Err(trouble) => return report.bad(HOP, trouble.words(), trouble.mend("the homeserver")),
    };
    let code = answer.errcode().unwrap_or_default();
    match (answer.status, code.as_str()) {
        (200, _) => report.ok(HOP, "the homeserver reaches weir"),
        (403, _) => report.bad(
            HOP,
            format!("the homeserver has no registration of the id `{}` with this as_token", home.registration_id()),
            "make `id` of the registration and `matrix.homeservers.id` the same",
        ),
        (_, "M_URL_NOT_SET") => {
            report.bad(HOP, "the registration has no url", "set `url` of the registration to where weir is")
        }
        (_, "M_BAD_STATUS") => report.bad(
            HOP,
            "weir refuses what the homeserver pushes: the hs_token is another one, or something else is at that url",
            "use the hs_token of the registration in weir's configuration; let `url` of the registration lead to weir",
        ),
        (_, "M_CONNECTION_FAILED" | "M_CONNECTION_TIMEOUT") => report.bad(
            HOP,
            "the homeserver does not reach weir at the url of the registration",
            "correct `url` of the registration (seen from the homeserver, containers included), and start weir",
        ),
        (404 | 405, _) => report.skip(HOP, "this homeserver has no ping for application services"),
        (status, code) => {
            report.bad(HOP, format!("the homeserver says {status} {code}"), "look into the log of the homeserver")
        }
    }
}

/// Whether clocks agree. Tokens say from when to when they are good.
pub(super) fn clock(hop: &'static str, whose: &str, answer: &Answer, report: &mut Report) {
    let hop = if hop == "service" { "clock" } else { "homeserver-clock" };
    let Some(ahead) = answer.clock_ahead.filter(|ahead| ahead.abs() > CLOCK) else { return };
    let (minutes, direction) = (ahead.abs() / 60, if ahead > 0 { "ahead of" } else { "behind" });
    report.bad(
        hop,
        format!("the clock of {whose} is {minutes} min {direction} the one of this machine"),
        "let both machines keep time (NTP, chrony or systemd-timesyncd): tokens are only good for a time",
    );
}

/// Whether it ends soon. That it is good, the connection has shown.
pub(super) fn certificate(whose: &str, answer: &Answer, report: &mut Report) {
    let Some(days) = answer.certificate_left.map(|seconds| seconds / 86_400) else { return };
    if days < 14 {
        report.warn(
            "certificate",
            format!("the certificate of {whose} ends in {days} days"),
            "look why it is not renewed by itself",
        );
    }
}
