//! Line charts as SVG: axes with units, a grid, a legend, gaps where nothing was measured.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// Told apart by people who see colours in other ways, and on white and black.
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];
const DASHES: [&str; 4] = ["", "6 3", "2 3", "9 3 2 3"];

/// A line of a chart: its name and its values by time.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A chart over seconds.
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// What stands on the vertical axis, with its unit.
    pub(super) unit: &'static str,
    pub(super) lines: Vec<Line>,
    /// The axis begins here at the latest, rather than at 0: for shares near 100 %.
    pub(super) from: Option<f64>,
    /// The axis does not go beyond.
    pub(super) to: Option<f64>,
}

impl Chart {
    /// The drawing, or nothing where nothing was measured.
    pub(super) fn svg(&self) -> Option<String> {
        let values = || self.lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, value)| *value));
        let highest = values().reduce(f64::max)?;
        let lowest = values().reduce(f64::min)?;
        let times = || self.lines.iter().flat_map(|line| line.points.iter().map(|(at, _)| *at));
        let (begin, end) = (times().reduce(f64::min)?, times().reduce(f64::max)?);
        let end = if end > begin { end } else { begin + 1.0 };
        let bottom = self.from.map_or(0.0, |from| lowest.min(from));
        // All of it 0: an axis to 1.
        let highest = if highest > bottom { highest } else { bottom + 1.0 };
        let step = step((self.to.unwrap_or(highest).max(highest) - bottom).max(1e-9) / 4.0);
        let bottom = (bottom / step).floor() * step;
        let top =
            (self.to.unwrap_or(highest).max(highest) / step - 1e-9).ceil().max((bottom / step).round() + 1.0) * step;
        let x = |at: f64| LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\"><g class=\"grid\">",
            self.title
        );
        let mut value = bottom;
        while value <= top + step / 2.0 {
            let at = y(value);
            // Writing to a String cannot fail, here and below.
            let _ = write!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" class=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                label(value, step)
            );
            value += step;
        }
        let wide = self::step((end - begin) / 7.0).max(1.0);
        let mut at = (begin / wide).ceil() * wide;
        while at <= end + 1e-9 {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" class=\"mid\">{}</text>",
                x(at),
                HEIGHT - BOTTOM + 16.0,
                label(at, wide)
            );
            at += wide;
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" class=\"mid\">time since the first join (s)</text>\
             <text transform=\"translate(13 {:.1}) rotate(-90)\" class=\"mid\">{}</text></g>",
            LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
            HEIGHT - 8.0,
            TOP + (HEIGHT - TOP - BOTTOM) / 2.0,
            self.unit
        );
        for (line, (colour, dash)) in self.lines.iter().zip(COLOURS.iter().zip(DASHES)) {
            let mut path = String::new();
            let mut pen = false;
            for (at, value) in &line.points {
                let Some(value) = value else {
                    pen = false;
                    continue;
                };
                let _ = write!(path, "{}{:.1} {:.1}", if pen { "L" } else { "M" }, x(*at), y(value.clamp(bottom, top)));
                pen = true;
            }
            let _ = write!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\" \
                 stroke-linejoin=\"round\" stroke-linecap=\"round\"/>"
            );
        }
        svg.push_str("</svg>");
        Some(svg)
    }

    /// The names of the lines, as HTML.
    pub(super) fn legend(&self) -> String {
        let mut html = String::new();
        if self.lines.len() < 2 {
            return html;
        }
        for (line, (colour, dash)) in self.lines.iter().zip(COLOURS.iter().zip(DASHES)) {
            let _ = write!(
                html,
                "<span><svg viewBox=\"0 0 28 8\" class=\"key\"><path d=\"M1 4H27\" stroke=\"{colour}\" stroke-width=\"2.5\" \
                 stroke-dasharray=\"{dash}\"/></svg>{}</span>",
                line.name
            );
        }
        html
    }
}

/// 1, 2 or 5 times a power of ten, not below.
fn step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let lead = [1.0, 2.0, 5.0, 10.0].into_iter().find(|lead| lead * power >= rough - 1e-12);
    lead.unwrap_or(10.0) * power
}

/// A number with as many digits as its step needs.
fn label(value: f64, step: f64) -> String {
    let digits =
        if step >= 1.0 { 0 } else { [0.1, 0.01, 0.001].iter().position(|s| step >= *s - 1e-12).map_or(4, |at| at + 1) };
    if value.abs() >= 10_000.0 && step >= 100.0 {
        let digits = usize::from(step < 1_000.0);
        return format!("{:.digits$}k", value / 1_000.0);
    }
    format!("{value:.digits$}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_labels_have_the_digits_they_need() {
        assert_eq!([step(0.3), step(1.0), step(1.2), step(26.0), step(700.0)], [0.5, 1.0, 2.0, 50.0, 1_000.0]);
        assert_eq!(label(0.25, 0.05), "0.25");
        assert_eq!(label(20_000.0, 5_000.0), "20k");
        assert_eq!(label(12_500.0, 500.0), "12.5k");
        assert_eq!(label(3.0, 1.0), "3");
    }

    #[test]
    fn draws_lines_with_gaps_inside_the_frame() {
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(3.0)), (3.0, Some(2.0))];
        let line = Line { name: "one", points };
        let chart = Chart { title: "t", unit: "ms", lines: vec![line], from: None, to: None };
        let svg = chart.svg().unwrap();
        assert_eq!(svg.matches('M').count(), 2, "{svg}");
        assert!(svg.contains(">time since the first join (s)<") && svg.contains(">ms<"));
        let nothing = Line { name: "none", points: vec![(0.0, None)] };
        assert!(Chart { lines: vec![nothing], ..chart }.svg().is_none());
    }
}
