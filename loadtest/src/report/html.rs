//! A report as one HTML page that needs nothing else: figures, faults, plots.

use std::fmt::Write as _;

use super::svg::{Chart, Line};
use super::{Percentiles, Report, Second};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d9dee3;--card:#fff;--page:#f5f6f8;--good:#0a7d4f;--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa4ae;--line:#353b42;--card:#1c2025;--page:#131619;--good:#4cc38a;--bad:#ff8a80}}\
*{box-sizing:border-box}body{margin:0;padding:28px;background:var(--page);color:var(--ink);\
font:15px/1.45 system-ui,'DejaVu Sans',sans-serif}main{max-width:1360px;margin:auto}h1{font-size:22px;margin:0 0 4px}\
h2{font-size:15px;margin:0 0 8px}p{margin:0 0 16px;color:var(--soft)}\
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px;margin-bottom:16px}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:12px}\
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px}\
.cards b{display:block;font-size:24px;font-weight:600}.cards small{color:var(--soft)}\
.good{color:var(--good)}.bad{color:var(--bad)}table{border-collapse:collapse;width:100%}\
td,th{text-align:right;padding:4px 10px;border-bottom:1px solid var(--line)}td:first-child,th:first-child{text-align:left}\
th{color:var(--soft);font-weight:500}section svg{width:100%;height:auto;display:block}.grid line{stroke:var(--line)}\
.grid text{fill:var(--soft);font-size:12px}.end{text-anchor:end}.mid{text-anchor:middle}\
.legend{display:flex;gap:18px;flex-wrap:wrap;font-size:13px;color:var(--soft);min-height:20px}\
.legend .key{display:inline-block;width:28px;height:8px;margin-right:6px}.wide{margin-bottom:12px}ul{margin:0;padding-left:20px}";

/// The page.
pub fn page(report: &Report) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Load test: {0}</title><style>{STYLE}</style></head>\
         <body><main><h1>Load test: {0}</h1><p>{1}. Server {2}; measured for {3:.0} s, begun {4}; generator on {5} processors.</p>",
        escape(&report.scenario.name),
        escape(&report.scenario.describe()),
        escape(&report.url),
        report.seconds,
        date(report.began),
        report.processors,
    );
    cards(report, &mut html);
    verdicts(report, &mut html);
    percentiles(report, &mut html);
    html.push_str("<div class=\"plots\">");
    for chart in charts(&report.series) {
        if let Some(svg) = chart.svg() {
            // Writing to a String cannot fail, here and below.
            let _ = write!(
                html,
                "<section><h2>{}</h2>{svg}<div class=\"legend\">{}</div></section>",
                chart.title,
                chart.legend()
            );
        }
    }
    html.push_str("</div></main></body></html>\n");
    html
}

fn cards(report: &Report, html: &mut String) {
    html.push_str("<div class=\"cards\">");
    let mut card = |name: &str, value: String, more: String, bad: bool| {
        let class = if bad { " class=\"bad\"" } else { "" };
        let _ = write!(html, "<section><small>{name}</small><b{class}>{value}</b><small>{more}</small></section>");
    };
    let frames = report.frames.expected();
    card(
        "delivery",
        format!("{:.3} %", report.delivery_percent),
        format!("{} packets, {} frames", report.delivered, report.frames.right),
        report.delivery_percent < 99.9,
    );
    let (name, latency) = if report.latency_ms.count > 0 {
        ("latency p99, packets", &report.latency_ms)
    } else {
        ("delay p99, frames", &report.frame_delay_ms)
    };
    card(name, format!("{:.1} ms", latency.p99), format!("median {:.1} ms", latency.p50), false);
    card(
        "received",
        format!("{:.1} Mbit/s", report.mbit_per_second),
        format!("{:.0} packets/s", report.packets_per_second),
        false,
    );
    card(
        "join, median",
        format!("{:.0} ms", report.join_ms.p50),
        format!("{} failed", report.failed_joins),
        report.failed_joins > 0,
    );
    card(
        "first media, median",
        format!("{:.0} ms", report.first_media_ms.p50),
        format!("p99 {:.0} ms", report.first_media_ms.p99),
        false,
    );
    if frames > 0 {
        let frozen = format!("{:.1} s in all", report.frames.frozen_ms as f64 / 1e3);
        card("freezes", report.frames.freezes.to_string(), frozen, false);
    }
    if let Some(busy) = report.server_cpu_percent {
        let cost = report
            .server_cpu_us_per_packet
            .map_or_else(String::new, |us| format!("{us:.1} &micro;s per forwarded packet"));
        card("server, of a processor", format!("{busy:.0} %"), cost, false);
    }
    let void = if report.void { "void: the generator was the limit" } else { "of all its processors" };
    card("generator", format!("{:.0} %", report.generator_cpu_percent), void.to_owned(), report.void);
    html.push_str("</div>");
}

fn verdicts(report: &Report, html: &mut String) {
    html.push_str("<section class=\"wide\"><h2>Faults</h2>");
    if report.faults.is_empty() {
        html.push_str(
            "<span class=\"good\">none found: what arrived was in order, in time, and bit for bit as sent</span>",
        );
    } else {
        html.push_str("<table><tr><th>fault</th><th>count</th><th>what was counted</th></tr>");
        for fault in &report.faults {
            let _ = write!(
                html,
                "<tr><td class=\"bad\">{}</td><td>{}</td><td>{}</td></tr>",
                escape(&fault.name),
                fault.count,
                escape(&fault.what)
            );
        }
        html.push_str("</table>");
    }
    html.push_str("</section>");
    if let Some(limit) = &report.limit {
        let _ = write!(html, "<section class=\"wide\"><h2>Limit</h2>{}</section>", escape(&limit.words()));
    }
    if !report.broken.is_empty() {
        html.push_str("<section class=\"wide\"><h2 class=\"bad\">Thresholds that broke</h2><ul>");
        report.broken.iter().for_each(|broken| html.push_str(&format!("<li>{}</li>", escape(broken))));
        html.push_str("</ul></section>");
    }
}

fn percentiles(report: &Report, html: &mut String) {
    html.push_str("<section class=\"wide\"><h2>Times in milliseconds</h2><table><tr><th></th><th>median</th><th>p95</th><th>p99</th><th>p99.9</th><th>count</th></tr>");
    let rows: [(&str, &Percentiles); 4] = [
        ("latency of packets (light participants)", &report.latency_ms),
        ("delay of frames (complete participants)", &report.frame_delay_ms),
        ("join: first octet to media path up", &report.join_ms),
        ("first media: first octet to first packet or frame", &report.first_media_ms),
    ];
    for (name, row) in rows.into_iter().filter(|(_, row)| row.count > 0) {
        let _ = write!(
            html,
            "<tr><td>{name}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{}</td></tr>",
            row.p50, row.p95, row.p99, row.p999, row.count
        );
    }
    html.push_str("</table></section>");
}

#[expect(clippy::cast_precision_loss, reason = "counts of a second")]
fn charts(series: &[Second]) -> Vec<Chart> {
    let line = |name, of: &dyn Fn(&Second) -> Option<f64>| Line {
        name,
        points: series.iter().map(|second| (second.at, of(second))).collect(),
    };
    let chart = |title, unit, lines| Chart { title, unit, lines, from: None, to: None };
    let layer = |at: usize| {
        move |second: &Second| (second.layers != [0; 3]).then(|| second.layers.get(at).map_or(0.0, |n| *n as f64))
    };
    vec![
        Chart {
            from: Some(99.0),
            to: Some(100.0),
            ..chart("Delivery", "arrived (%)", vec![line("delivery", &|s| s.delivery_percent)])
        },
        chart("Loss", "missing (%)", vec![line("loss", &|s| s.loss_percent)]),
        chart(
            "Latency",
            "send to receive (ms)",
            vec![line("median", &|s| s.p50_ms), line("p95", &|s| s.p95_ms), line("p99", &|s| s.p99_ms)],
        ),
        chart("Media received", "bitrate (Mbit/s)", vec![line("received", &|s| Some(s.mbit))]),
        chart("Packets received", "packets per second", vec![line("packets", &|s| Some(s.packets))]),
        chart(
            "Participants and streams",
            "count",
            vec![
                line("participants", &|s| Some(s.participants as f64)),
                line("streams that bring something", &|s| Some(s.streams as f64)),
                line("streams there should be", &|s| Some(s.streams_wanted as f64)),
            ],
        ),
        chart("Slowest join of the second", "join (ms)", vec![line("join", &|s| s.join_ms)]),
        chart(
            "Encodings at complete participants",
            "video streams",
            vec![line("lowest", &layer(0)), line("middle", &layer(1)), line("highest", &layer(2))],
        ),
        chart(
            "Frames at complete participants",
            "frames per second",
            vec![line("frames", &|s| (s.frames > 0.0).then_some(s.frames))],
        ),
        chart(
            "Freezes at complete participants",
            "freezes in the second",
            vec![line("freezes", &|s| (s.frames > 0.0).then_some(s.freezes as f64))],
        ),
        chart("Server", "busy (% of one processor)", vec![line("server", &|s| s.server_percent)]),
        chart("Memory of the server", "resident (MB)", vec![line("memory", &|s| s.server_mb)]),
        Chart {
            to: Some(100.0),
            ..chart("Generator", "busy (% of its processors)", vec![line("generator", &|s| Some(s.generator_percent))])
        },
    ]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Date and time of day, UTC: days since 1970 as the civil calendar has them.
fn date(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02} UTC", day + 1, time / 3_600, time / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Found;

    #[test]
    fn knows_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(date(1_798_761_599), "2026-12-31 23:59 UTC");
    }

    #[test]
    fn a_page_names_faults_and_holds_no_foreign_markup() {
        let fault = Found { name: "dropped".to_owned(), count: 7, what: "<b>".to_owned() };
        let series = (0..5u32).map(|n| Second { at: f64::from(n), p50_ms: Some(1.5), ..Second::default() }).collect();
        let page = page(&Report { faults: vec![fault], series, ..Report::default() });
        assert!(page.contains("dropped") && page.contains("&lt;b&gt;") && page.contains("send to receive (ms)"));
        assert!(!page.contains("http://") && !page.contains("<script"), "one page, nothing else");
    }
}
