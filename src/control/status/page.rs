//! The HTML of the status page. Whole without its script, which only keeps it fresh; made for phones and screen readers
//! as for anybody else (WCAG 2.2 AA): one heading order, real tables with captions, nothing said by colour alone.

use std::fmt::Write;

use serde_json::Value;

use super::super::debug::percent;
use super::super::load::Point;
use super::{Line, Overview, bitrate, known};
use crate::shard::debug::{ParticipantState, Reason, RoomState};
use crate::transport::route::Route;

/// Width and height of the drawing, in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 160.0;

/// The node.
pub(super) fn overview(it: &Overview, listed: usize) -> String {
    let mut main = String::new();
    let participants: usize = it.rooms.iter().map(|line| line.participants).sum();
    let state = if it.health.not_ready.is_empty() { "ready" } else { "not ready" };
    let now = it.history.last();
    let cards = [
        ("State", state.to_owned()),
        ("Load", format!("{:.0} %", it.figure.load * 100.0)),
        ("Rooms", it.rooms.len().to_string()),
        ("Participants", participants.to_string()),
        ("Received", bitrate(whole(now.map_or(0.0, |point| point.received)))),
        ("Sent", bitrate(whole(now.map_or(0.0, |point| point.sent)))),
        ("Connections", it.connections.to_string()),
    ];
    main.push_str("<h1>weir</h1>\n");
    main.push_str(&list(&cards));
    warnings(&mut main, &it.warnings);
    main.push_str("<h2>Load over the last hour</h2>\n");
    main.push_str(&chart(&it.history));
    main.push_str("<h2>What the load comes from</h2>\n<dl class=\"cards\">\n");
    for (name, share) in &it.figure.parts {
        let _ = writeln!(main, "<div><dt>{name}</dt><dd>{:.0} %</dd></div>", share * 100.0);
    }
    for (thread, busy) in it.figure.threads.iter().enumerate() {
        let _ = writeln!(main, "<div><dt>media thread {thread}</dt><dd>{:.0} %</dd></div>", busy * 100.0);
    }
    main.push_str("</dl>\n<h2>Rooms</h2>\n");
    if it.rooms.is_empty() {
        main.push_str("<p>No room is open.</p>\n");
    } else {
        let rows = it.rooms.iter().take(listed).map(|line| {
            vec![
                format!("<a href=\"/rooms/{0}\">Room {0}</a>", line.number),
                line.participants.to_string(),
                line.tracks.to_string(),
                line.downtracks.to_string(),
                bitrate(line.received),
                bitrate(line.sent),
                quality(line.quality),
                lost(line.lost),
            ]
        });
        let heads = ["Room", "Participants", "Tracks", "Copies", "Received", "Sent", "Worst quality", "Worst loss"];
        main.push_str(&table(&format!("Rooms open: {}; largest first", it.rooms.len()), &heads, rows));
    }
    document("weir: status", &main, "/status.json")
}

/// One room.
pub(super) fn room(number: u64, line: &Line, state: &RoomState, picture: &Value) -> String {
    let mut main = format!("<p><a href=\"/\">All rooms</a></p>\n<h1>Room {number}</h1>\n");
    let sid = picture.get("sid").and_then(Value::as_str).unwrap_or_default();
    let cards = [
        ("Id", escape(sid)),
        ("Participants", line.participants.to_string()),
        ("Received", bitrate(line.received)),
        ("Sent", bitrate(line.sent)),
        ("Worst quality", quality(line.quality)),
        ("Worst loss", lost(line.lost)),
    ];
    main.push_str(&list(&cards));
    let of_signalling = |id: u64| {
        let all = picture.get("participants").and_then(Value::as_array)?;
        all.iter().find(|it| it.get("id").and_then(Value::as_u64) == Some(id))
    };
    for participant in &state.participants {
        main.push_str(&person(participant, of_signalling(participant.id.0)));
    }
    document(&format!("weir: room {number}"), &main, &format!("/rooms/{number}/status.json"))
}

/// A room that is not there.
pub(super) fn gone(number: u64) -> String {
    let main = format!(
        "<p><a href=\"/\">All rooms</a></p>\n<h1>Room {number}</h1>\n<p>This room is not open (any more).</p>\n"
    );
    document(&format!("weir: room {number}"), &main, "/status.json")
}

fn person(it: &ParticipantState, signalled: Option<&Value>) -> String {
    let text = |name: &str| signalled.and_then(|it| it.get(name)).and_then(Value::as_str).unwrap_or("unknown");
    let sid = escape(text("sid"));
    let mut out = format!("<section>\n<h2>Participant {sid}</h2>\n");
    let path = |route: Option<Route>| match route {
        Some(Route::Udp { .. }) => "UDP",
        Some(Route::Tcp { .. }) => "TCP",
        Some(Route::Turn { .. }) => "TURN",
        None => "no path",
    };
    let paths: Vec<&str> = it.transports.iter().map(|transport| path(transport.route)).collect();
    let sent: u64 = it.transports.iter().map(|transport| transport.sending.as_bps()).sum();
    let estimate = it.transports.first().map_or_else(|| "not known".to_owned(), |transport| known(transport.estimate));
    let way = it.transports.iter().find_map(|transport| transport.path).map_or_else(
        || "not known".to_owned(),
        |path| {
            let (rtt, queue) = (path.rtt.as_millis(), path.queue.as_millis());
            format!("round trip {rtt} ms, queue {queue} ms, {:.1} % lost", f64::from(path.loss_per_mille) / 10.0)
        },
    );
    out.push_str(&list(&[
        ("State", escape(text("state")).to_lowercase()),
        ("Client", escape(text("client"))),
        ("Path", paths.join(", ")),
        ("Quality", quality(it.quality)),
        ("Sent to it", bitrate(sent)),
        ("It could take", estimate),
        ("It wants", bitrate(it.needed.as_bps())),
        ("Allotted", bitrate(it.allotted.as_bps())),
        ("Way there", way),
    ]));
    let published = it.tracks.iter().flat_map(|track| {
        track.encodings.iter().enumerate().map(|(layer, encoding)| {
            vec![
                within(track.id.0),
                layer.to_string(),
                if track.muted {
                    "muted"
                } else if encoding.active {
                    "flows"
                } else {
                    "silent"
                }
                .to_owned(),
                bitrate(if encoding.active { encoding.bitrate.as_bps() } else { 0 }),
                lost(encoding.fraction_lost),
                track.downtracks.to_string(),
            ]
        })
    });
    if !it.tracks.is_empty() {
        let heads = ["Track", "Layer", "State", "Bitrate", "Lost", "Taken by"];
        out.push_str(&table(&format!("Published by {sid}"), &heads, published));
    }
    if !it.downtracks.is_empty() {
        let layer = |layer: Option<u8>| layer.map_or_else(|| "none".to_owned(), |layer| layer.to_string());
        let received = it.downtracks.iter().map(|downtrack| {
            vec![
                within(downtrack.track.0),
                layer(downtrack.demand),
                layer(downtrack.target),
                layer(downtrack.current),
                why(downtrack.reason).to_owned(),
                downtrack.sent.to_string(),
                lost(downtrack.fraction_lost),
            ]
        });
        let heads = ["Track", "Layer wanted", "Layer allotted", "Layer flowing", "Because", "Packets", "Lost"];
        out.push_str(&table(&format!("Received by {sid}"), &heads, received));
    }
    out.push_str("</section>\n");
    out
}

/// Why a layer flows and not another.
const fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Disabled => "turned off or hidden by its subscriber",
        Reason::Muted => "muted by its publisher",
        Reason::NotConnected => "no path to its subscriber",
        Reason::Paused => "paused: not even the lowest layer fits",
        Reason::Starved => "the lowest layer is more than fits",
        Reason::Bandwidth => "more does not fit, or did not a moment ago",
        Reason::NotSent => "its publisher sends no other",
        Reason::AwaitingKeyframe => "the next key frame is waited for",
        Reason::Wanted => "as asked for",
    }
}

fn warnings(main: &mut String, warnings: &[String]) {
    main.push_str("<h2>Warnings</h2>\n");
    if warnings.is_empty() {
        main.push_str("<p>None.</p>\n");
        return;
    }
    main.push_str("<ul class=\"warnings\">\n");
    for warning in warnings {
        let _ = writeln!(main, "<li><strong>Warning:</strong> {}</li>", escape(warning));
    }
    main.push_str("</ul>\n");
}

fn list(cards: &[(&str, String)]) -> String {
    let mut out = "<dl class=\"cards\">\n".to_owned();
    for (name, value) in cards {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>\n");
    out
}

/// Cells are HTML already.
fn table(caption: &str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut out = format!(
        "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\">\n<table>\n<caption>{caption}</caption>\n\
         <thead><tr>"
    );
    for head in heads {
        let _ = write!(out, "<th scope=\"col\">{head}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let _ = match at {
                0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                _ => write!(out, "<td>{cell}</td>"),
            };
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
    out
}

/// Load as a line, with its largest and last value in words.
fn chart(history: &[Point]) -> String {
    let (Some(first), Some(last)) = (history.first(), history.last()) else { return String::new() };
    let end = last.at;
    let x = |at: u64| WIDTH - f64::from(u32::try_from(end.saturating_sub(at)).unwrap_or(u32::MAX)) / 3_600.0 * WIDTH;
    let points: Vec<String> = history
        .iter()
        .map(|point| format!("{:.1},{:.1}", x(point.at).max(0.0), HEIGHT - point.load.clamp(0.0, 1.0) * HEIGHT))
        .collect();
    let most = history.iter().map(|point| point.load).fold(0.0, f64::max) * 100.0;
    let minutes = (end.saturating_sub(first.at) + 30) / 60;
    let words = format!(
        "Load of the last {minutes} minutes: now {:.0} %, at most {most:.0} %. Participants now: {}.",
        last.load * 100.0,
        last.participants
    );
    format!(
        "<figure>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{words}\" preserveAspectRatio=\"none\">\n\
         <line class=\"grid\" x1=\"0\" y1=\"{half}\" x2=\"{WIDTH}\" y2=\"{half}\"/>\n\
         <line class=\"limit\" x1=\"0\" y1=\"{high}\" x2=\"{WIDTH}\" y2=\"{high}\"/>\n\
         <polyline points=\"{}\"/>\n</svg>\n<figcaption>{words} From 0 to 100 %; the dashed line is 80 %.</figcaption>\n</figure>\n",
        points.join(" "),
        half = HEIGHT / 2.0,
        high = HEIGHT * 0.2,
    )
}

fn quality(score: Option<u8>) -> String {
    match score {
        None => "not judged".to_owned(),
        Some(score @ 80..) => format!("good ({score})"),
        Some(score @ 50..80) => format!("fair ({score})"),
        Some(score) => format!("poor ({score})"),
    }
}

fn lost(fraction: u8) -> String {
    format!("{} %", percent(fraction))
}

/// An id as counted within its room.
fn within(id: u64) -> String {
    (id & u64::from(u32::MAX)).to_string()
}

/// A rate, without its fractions.
fn whole(rate: f64) -> u64 {
    // Out of a smoothed rate, so never near the limits of either type.
    format!("{:.0}", rate.max(0.0)).parse().unwrap_or(0)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn document(title: &str, main: &str, data: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <link rel=\"stylesheet\" href=\"/status.css\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <script src=\"/status.js\" defer></script>\n</head>\n<body>\n\
         <header><label><input type=\"checkbox\" id=\"fresh\"> Update every 5 seconds</label>\n\
         <span id=\"when\" role=\"status\"></span></header>\n\
         <main>\n{main}</main>\n\
         <footer><p>weir {} · <a href=\"{data}\">this page as JSON</a> · <a href=\"/metrics\">metrics</a></p></footer>\n\
         </body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}
