//! Latency by percentile, drawn as SVG: each further nine takes as much room as the one before, as
//! in HdrHistogram's own plots, so that the tail is seen.

use std::fmt::{self, Write as _};

use super::{
    report::{Report, Time},
    tally::Latencies,
};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 60.0;

/// Points of the curve per nine.
const STEPS_PER_NINE: usize = 40;

/// The most nines that are drawn, and the fewest.
const NINES: std::ops::RangeInclusive<usize> = 2..=6;

/// The latencies of a run. Empty axes when there are none.
pub(crate) fn plot(report: &Report) -> String {
    let mut svg = String::new();
    // Writing into a text does not fail.
    let _ = Plot::new(report.latency()).draw(&mut svg, &report.title());
    svg
}

struct Plot<'a> {
    latencies: &'a Latencies,
    nines: usize,
    top: f64,
    step: f64,
}

impl<'a> Plot<'a> {
    fn new(latencies: &'a Latencies) -> Self {
        // A quantile is worth drawing while some samples lie beyond it.
        let nines = latencies.count().max(1).ilog10() as usize;
        let nines = nines.clamp(*NINES.start(), *NINES.end());
        let step = step(latencies.max());
        let top = (latencies.max() / step).ceil().max(1.0) * step;
        Self { latencies, nines, top, step }
    }

    /// Across: 0 is no nine, 1 is 90 %, 2 is 99 %.
    fn x(&self, nines: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * nines / self.nines as f64
    }

    fn y(&self, micros: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * micros / self.top
    }

    fn draw(&self, svg: &mut String, title: &str) -> fmt::Result {
        write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#444\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"16\" fill=\"#111\">Latency by percentile</text>\n\
             <text x=\"{LEFT}\" y=\"46\">{}</text>\n",
            escaped(title)
        )?;
        self.axes(svg)?;
        self.curve(svg)?;
        self.marks(svg)?;
        svg.write_str("</svg>\n")
    }

    fn axes(&self, svg: &mut String) -> fmt::Result {
        let (left, right) = (self.x(0.0), self.x(self.nines as f64));
        let mut micros = 0.0;
        while micros <= self.top * 1.001 {
            let y = self.y(micros);
            writeln!(
                svg,
                "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#e3e3e3\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + 4.0,
                Time(micros)
            )?;
            micros += self.step;
        }
        let (top, bottom) = (self.y(self.top), self.y(0.0));
        for nines in 0..=self.nines {
            let x = self.x(nines as f64);
            writeln!(
                svg,
                "<path d=\"M{x:.1} {top:.1}V{bottom:.1}\" stroke=\"#e3e3e3\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 20.0,
                percent(nines)
            )?;
        }
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">percentile</text>",
            f64::midpoint(left, right),
            bottom + 42.0
        )
    }

    fn curve(&self, svg: &mut String) -> fmt::Result {
        if self.latencies.count() == 0 {
            return Ok(());
        }
        svg.write_str("<path fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\" d=\"")?;
        for step in 0..=self.nines * STEPS_PER_NINE {
            let nines = step as f64 / STEPS_PER_NINE as f64;
            let micros = self.latencies.quantile(1.0 - 0.1_f64.powf(nines));
            let command = if step == 0 { 'M' } else { 'L' };
            write!(svg, "{command}{:.1} {:.1}", self.x(nines), self.y(micros))?;
        }
        svg.write_str("\" stroke-linejoin=\"round\"/>\n")
    }

    /// The values at each nine, in words.
    fn marks(&self, svg: &mut String) -> fmt::Result {
        if self.latencies.count() == 0 {
            return Ok(());
        }
        let median = (2.0_f64.log10(), 0.5);
        let nines = (1..=self.nines).map(|nines| (nines as f64, 1.0 - 0.1_f64.powi(nines as i32)));
        for (nines, quantile) in std::iter::once(median).chain(nines) {
            let micros = self.latencies.quantile(quantile);
            let (x, y) = (self.x(nines), self.y(micros));
            // There is no room to the left of the first.
            let (name, anchor, left) = match quantile {
                0.5 => ("median ", "middle", 0.0),
                _ => ("", "end", 6.0),
            };
            writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#1f6feb\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#111\">{name}{}</text>",
                x - left,
                y - 8.0,
                Time(micros)
            )?;
        }
        Ok(())
    }
}

/// `0%`, `90%`, `99%`, `99.9%`.
fn percent(nines: usize) -> String {
    match nines {
        0 => "0%".to_owned(),
        1 => "90%".to_owned(),
        2 => "99%".to_owned(),
        more => format!("99.{}%", "9".repeat(more - 2)),
    }
}

/// Between two lines: 1, 2 or 5 times a power of ten, for five or so of them up to there.
fn step(max: f64) -> f64 {
    let rough = (max / 5.0).max(0.1);
    let power = 10_f64.powf(rough.log10().floor());
    let fits = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough);
    fits.unwrap_or(10.0) * power
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn drawn(latencies: &Latencies) -> String {
        let mut svg = String::new();
        Plot::new(latencies).draw(&mut svg, "a <title>").unwrap();
        svg
    }

    #[test]
    fn percentiles_are_drawn_as_far_as_the_samples_tell() {
        let mut latencies = Latencies::new();
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let svg = drawn(&latencies);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt;title&gt;"));
        for label in ["0%", "90%", "99%", "99.9%", "median 500 µs", "1.0 ms"] {
            assert!(svg.contains(&format!(">{label}<")), "{label}: {svg}");
        }
        assert!(!svg.contains("99.99%"));
    }

    #[test]
    fn an_empty_histogram_has_axes() {
        let svg = drawn(&Latencies::new());
        assert!(svg.contains("99%") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn lines_are_at_round_numbers() {
        for (max, expected) in [(0.0, 0.1), (4.0, 1.0), (50.0, 10.0), (73.0, 20.0), (990.0, 200.0)]
        {
            let step = step(max);
            assert!((step - expected).abs() < 1e-9, "{max}: {step}");
        }
    }
}
