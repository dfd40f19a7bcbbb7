//! The hops around weir over HTTP: the endpoints clients ask, what a proxy in front lets through, WebSockets.

use reqwest::Method;

use super::homeserver::{certificate, clock};
use super::report::Report;
use super::web::{Answer, Trouble, Web};

/// Bytes of a request line clients send in the field: a join request is part of it.
const LONG_LINE: usize = 14 << 10;
/// What a client may have to send in headers.
const LONG_HEADER: usize = 7 << 10;

/// Look at weir at `base` (http or https). Gives whether joins can be tried.
pub(super) async fn look(web: &Web, base: &str, is_matrix: bool, report: &mut Report) -> bool {
    const HOP: &str = "service";
    // Without a token every weir and every LiveKit server says the same, whatever else is there.
    let url = format!("{base}/rtc/validate");
    let answer = match web.get(&url).await {
        Ok(answer) => answer,
        Err(trouble) => {
            report.bad(HOP, format!("{base}: {}", trouble.words()), trouble.mend("weir (or the proxy in front of it)"));
            return false;
        }
    };
    clock(HOP, "weir", &answer, report);
    certificate("weir", &answer, report);
    if !judge_first(base, &answer, report) {
        return false;
    }
    if is_matrix {
        endpoints(web, base, report).await;
    }
    websocket(web, base, report).await;
    long_requests(web, base, report).await;
    true
}

fn judge_first(base: &str, answer: &Answer, report: &mut Report) -> bool {
    const HOP: &str = "service";
    match answer.status {
        401 => {
            if answer.allows_all_origins {
                report.ok(HOP, format!("{base} answers"));
            } else {
                report.bad(
                    HOP,
                    format!("{base} answers without CORS headers: the proxy takes them away"),
                    "let the proxy hand weir's headers on as they are",
                );
            }
            true
        }
        502..=504 => {
            report.bad(
                HOP,
                format!("the proxy at {base} does not reach weir (it says {})", answer.status),
                "start weir; let the proxy's upstream be weir's `port`",
            );
            false
        }
        404 => {
            report.bad(
                HOP,
                format!("{base}/rtc/validate is 404: the proxy does not hand /rtc to weir"),
                "let the proxy hand everything below this URL to weir",
            );
            false
        }
        status => {
            report.bad(
                HOP,
                format!("{base}/rtc/validate answers {status}, which weir never does: something else is there"),
                "let this URL lead to weir",
            );
            false
        }
    }
}

/// What clients of every generation ask. An empty request is refused with 400 by weir; by nobody else in this way.
async fn endpoints(web: &Web, base: &str, report: &mut Report) {
    const HOP: &str = "token-endpoints";
    for path in ["/sfu/get", "/get_token", "/delegate_delayed_leave"] {
        let url = format!("{base}{path}");
        match web.post(&url, "{}").await {
            Ok(answer) if answer.status == 400 && answer.errcode().is_some() => {}
            Ok(answer) => {
                return report.bad(
                    HOP,
                    format!("{url} answers {} instead of weir's refusal of an empty request", answer.status),
                    format!("let the proxy hand {path} to weir, with any method"),
                );
            }
            Err(trouble) => return report.bad(HOP, format!("{url}: {}", trouble.words()), trouble.mend("weir")),
        }
        let preflight = web
            .request(Method::OPTIONS, &url)
            .header("origin", "https://app.example.org")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type");
        match web.send(preflight).await {
            Ok(answer) if (200..300).contains(&answer.status) && answer.allows_all_origins => {}
            Ok(answer) => {
                return report.bad(
                    HOP,
                    format!(
                        "{url} answers a browser's preflight (OPTIONS) with {}, or without CORS headers",
                        answer.status
                    ),
                    "let the proxy hand OPTIONS to weir, and add or remove no CORS headers",
                );
            }
            Err(trouble) => return report.bad(HOP, format!("{url}: {}", trouble.words()), trouble.mend("weir")),
        }
    }
    report.ok(HOP, "all three, with their CORS headers");
}

/// An upgrade without a token: weir's refusal shows that the request came through as what it was.
async fn websocket(web: &Web, base: &str, report: &mut Report) {
    const HOP: &str = "websocket";
    for path in ["/rtc", "/rtc/v1"] {
        let answer = web.send(upgrade(web, &format!("{base}{path}"))).await;
        match answer {
            Ok(answer) if answer.status == 401 => {}
            Ok(answer) if answer.status == 404 => {
                return report.bad(
                    HOP,
                    format!("{base}{path} does not see the request as a WebSocket: the proxy drops the upgrade"),
                    "nginx: `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \
                     $connection_upgrade;`; Apache: `RewriteRule` with the `upgrade=websocket` parameter or mod_proxy_wstunnel",
                );
            }
            Ok(answer) => {
                return report.bad(
                    HOP,
                    format!("{base}{path} answers {} to a WebSocket request", answer.status),
                    "let the proxy hand WebSockets to weir",
                );
            }
            Err(trouble) => return report.bad(HOP, format!("{base}{path}: {}", trouble.words()), trouble.mend("weir")),
        }
    }
    report.ok(HOP, "upgrades come through");
}

/// With what every WebSocket client sends.
pub(super) fn upgrade(web: &Web, url: &str) -> reqwest::RequestBuilder {
    web.request(Method::GET, url)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "d2Vpci1kb2N0b3ItMTIzNA==")
}

/// Join requests are long, and proxies cut: nginx at 8 KiB, others elsewhere.
async fn long_requests(web: &Web, base: &str, report: &mut Report) {
    const HOP: &str = "request-size";
    let long = "x".repeat(LONG_LINE);
    let line = web.get(&format!("{base}/rtc/validate?join_request={long}")).await;
    let header = web.request(Method::GET, &format!("{base}/rtc/validate")).bearer_auth("x".repeat(LONG_HEADER));
    let header = web.send(header).await;
    for (what, answer) in [("a request line of 14 KiB", line), ("a header of 7 KiB", header)] {
        match answer {
            Ok(answer) if answer.status == 401 => {}
            Ok(Answer { status: 400 | 413 | 414 | 431, .. }) | Err(Trouble::Other(_)) => {
                return report.bad(
                    HOP,
                    format!("the proxy refuses {what}: joins of many clients fail"),
                    "nginx: `large_client_header_buffers 4 32k;`; HAProxy: `tune.bufsize 65536`; Apache: \
                     `LimitRequestLine 32768`; Caddy and Traefik need nothing",
                );
            }
            Ok(answer) => {
                return report.bad(
                    HOP,
                    format!("{what} is answered with {}", answer.status),
                    "look into the proxy's log",
                );
            }
            Err(trouble) => return report.bad(HOP, format!("{what}: {}", trouble.words()), trouble.mend("the proxy")),
        }
    }
    report.ok(HOP, "long request lines and headers come through");
}
