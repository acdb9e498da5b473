//! Charts, drawn as plain SVG.

use std::fmt::Write;

use crate::report::{Row, Target, figure};

const WIDTH: f64 = 760.0;
const INK: &str = "#333";
const PALE: &str = "#ddd";
const BLUE: &str = "#2b6cb0";
const RED: &str = "#c53030";
/// Where the plot begins, from the left.
const LEFT: f64 = 230.0;
const RIGHT: f64 = WIDTH - 60.0;

/// A drawing under way. Text and shapes are laid out by hand.
struct Drawing(String);

impl Drawing {
    fn new(height: f64, title: &str) -> Self {
        let mut drawing = Self(format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">
<rect width="{WIDTH}" height="{height}" fill="white"/>
"#
        ));
        drawing.add(&format!(
            r#"<text x="20" y="26" font-size="16" font-weight="bold" fill="{INK}">{title}</text>"#
        ));
        drawing
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.add(&format!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{INK}">{text}</text>"#
        ));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(&format!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="1.5"/>"#
        ));
    }

    fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        self.add(&format!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
        ));
    }

    fn path(&mut self, points: &[(f64, f64)], colour: &str) {
        let mut path = String::new();
        for (x, y) in points {
            // Writing to a text cannot fail.
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        self.add(&format!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.trim_end()
        ));
        for (x, y) in points {
            self.add(&format!(
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#
            ));
        }
    }

    fn add(&mut self, element: &str) {
        self.0.push_str(element);
        self.0.push('\n');
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// The ratios as bars with their ranges; the mark is what is claimed.
pub fn ratios(rows: &[Row]) -> String {
    const STEP: f64 = 34.0;
    const WIDEST: f64 = 2.5;
    let shown: Vec<(&Row, [f64; 3])> = rows
        .iter()
        .filter_map(|row| Some((row, row.ratio?)))
        .collect();
    let most = shown.iter().map(|(_, [_, _, greatest])| *greatest);
    let most = (most.fold(1.3_f64, f64::max) * 1.05).min(WIDEST);
    // What is off the chart has its figure at the edge.
    let x = |ratio: f64| LEFT + (RIGHT - LEFT) * (ratio / most).min(1.0);
    let bottom = 50.0 + STEP * shown.len() as f64;
    let mut drawing = Drawing::new(bottom + 40.0, "The worker as a ratio of the bare loop");
    let mut tick = 0.0;
    while tick <= most {
        drawing.line((x(tick), 40.0), (x(tick), bottom), PALE);
        drawing.text((x(tick), bottom + 18.0), "middle", &format!("{tick:.2}"));
        tick += 0.25;
    }
    for (n, (row, [middle, least, greatest])) in shown.into_iter().enumerate() {
        let y = 50.0 + STEP * n as f64;
        drawing.text((LEFT - 8.0, y + 15.0), "end", row.what);
        let colour = if row.met { BLUE } else { RED };
        drawing.bar((LEFT, y), (x(middle) - LEFT, 20.0), colour);
        drawing.line((x(least), y + 10.0), (x(greatest), y + 10.0), INK);
        let bound = match row.target {
            Target::AtLeast(bound) | Target::AtMost(bound) => x(bound),
        };
        drawing.line((bound, y - 4.0), (bound, y + 24.0), INK);
        let label = format!("{middle:.2}");
        drawing.text((x(greatest.max(middle)) + 6.0, y + 15.0), "start", &label);
    }
    drawing.end()
}

/// One figure along a curve.
pub struct Line<'a> {
    /// What it is, and its unit.
    pub what: &'a str,
    /// The figure at each point.
    pub values: Vec<f64>,
}

/// Figures against what is varied, one small chart under the other, each from zero; the points stand at equal distances.
pub fn curve(title: &str, points: &[String], lines: &[Line<'_>]) -> String {
    const HEIGHT: f64 = 150.0;
    let mut drawing = Drawing::new(60.0 + HEIGHT * lines.len() as f64, title);
    let step = (RIGHT - LEFT) / (points.len().max(2) - 1) as f64;
    for (n, line) in lines.iter().enumerate() {
        let (top, base) = (50.0 + HEIGHT * n as f64, 50.0 + HEIGHT * n as f64 + 100.0);
        let most = line.values.iter().copied().fold(0.0_f64, f64::max) * 1.1;
        let place = |(at, value): (usize, &f64)| {
            let share = if most > 0.0 { value / most } else { 0.0 };
            (LEFT + step * at as f64, base - (base - top) * share)
        };
        drawing.line((LEFT, base), (RIGHT, base), INK);
        drawing.text((LEFT - 30.0, top + 50.0), "end", line.what);
        let places: Vec<_> = line.values.iter().enumerate().map(place).collect();
        drawing.path(&places, BLUE);
        for (((x, y), value), point) in places.iter().zip(&line.values).zip(points) {
            drawing.text((*x, y - 8.0), "middle", &figure(*value));
            drawing.text((*x, base + 16.0), "middle", point);
        }
    }
    drawing.end()
}
