//! The latency plot: percentiles on a scale that gives each further nine equal room.

use crate::recorder::Hist;
use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// An SVG of the distributions, latency in microseconds.
pub(crate) fn percentiles(title: &str, latencies: &[(String, Hist)]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, latencies).map_err(|e| anyhow!("plot: {e}"))?;
    Ok(svg)
}

fn draw(
    svg: &mut String,
    title: &str,
    latencies: &[(String, Hist)],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let nines = latencies
        .iter()
        .map(|(_, h)| nines_max(h))
        .fold(2.0, f64::max);
    let top = latencies
        .iter()
        .map(|(_, h)| h.max() as f64 / 1e3)
        .fold(10.0, f64::max)
        * 1.2;
    let low = latencies
        .iter()
        .map(|(_, h)| h.min() as f64 / 1e3)
        .fold(top, f64::min);
    let low = (low * 0.8).max(0.1);
    let area = SVGBackend::with_string(svg, (900, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            format!("{title}: latency by percentile"),
            ("sans-serif", 20),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..nines, (low..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("µs")
        .x_labels(nines.ceil() as usize + 1)
        .x_label_formatter(&|x| label(*x))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for (i, (name, hist)) in latencies.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points = points(hist);
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// One bar: a median and the outermost rounds.
pub(crate) struct Bar {
    /// Whose.
    pub(crate) label: String,
    /// Lowest round.
    pub(crate) low: f64,
    /// Median.
    pub(crate) middle: f64,
    /// Highest round.
    pub(crate) high: f64,
}

/// An SVG of bars side by side, with their spreads. From zero, so that lengths compare; each
/// carries its figure, since the shortest may be hard to see.
pub(crate) fn bars(title: &str, unit: &str, bars: &[Bar]) -> Result<String> {
    let mut svg = String::new();
    draw_bars(&mut svg, title, unit, bars).map_err(|e| anyhow!("plot: {e}"))?;
    Ok(svg)
}

fn draw_bars(
    svg: &mut String,
    title: &str,
    unit: &str,
    bars: &[Bar],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let top = bars.iter().map(|b| b.high).fold(0.01, f64::max) * 1.15;
    let area = SVGBackend::with_string(svg, (900, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..bars.len() as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc(unit)
        .y_label_formatter(&|y| format!("{y}"))
        .draw()?;
    for (i, bar) in bars.iter().enumerate() {
        let (left, colour) = (i as f64, COLOURS[i % COLOURS.len()]);
        let body = [(left + 0.2, 0.0), (left + 0.8, bar.middle)];
        let spread = [(left + 0.5, bar.low), (left + 0.5, bar.high)];
        chart.draw_series([Rectangle::new(body, colour.filled())])?;
        chart.draw_series(LineSeries::new(spread, BLACK.stroke_width(2)))?;
        // A text hangs from its place.
        let at = (left + 0.12, bar.high + top * 0.05);
        let text = format!("{}: {:.3}", bar.label, bar.middle);
        chart.draw_series([Text::new(text, at, ("sans-serif", 15))])?;
    }
    area.present()?;
    Ok(())
}

/// What a curve's axes say.
pub(crate) struct Axes {
    /// Title of the plot.
    pub(crate) title: &'static str,
    /// What grows.
    pub(crate) x: &'static str,
    /// What is measured.
    pub(crate) y: &'static str,
}

/// A curve: its name and its points.
pub(crate) type Series = (String, Vec<(f64, f64)>);

/// An SVG of curves with a mark at each point, both scales logarithmic: what does not grow is flat,
/// and what grows in proportion is a diagonal.
pub(crate) fn curves(axes: &Axes, series: &[Series]) -> Result<String> {
    let mut svg = String::new();
    draw_curves(&mut svg, axes, series).map_err(|e| anyhow!("plot: {e}"))?;
    Ok(svg)
}

fn draw_curves(
    svg: &mut String,
    axes: &Axes,
    series: &[Series],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points = || series.iter().flat_map(|(_, points)| points);
    let range = |of: fn(&(f64, f64)) -> f64, room: f64| {
        let low = points().map(of).fold(f64::INFINITY, f64::min);
        let high = points().map(of).fold(f64::NEG_INFINITY, f64::max);
        let low = if low.is_finite() { low.max(1e-6) } else { 1.0 };
        (low / room, high.max(low) * room)
    };
    let ((left, right), (floor, top)) = (range(|p| p.0, 1.1), range(|p| p.1, 2.0));
    let area = SVGBackend::with_string(svg, (900, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(axes.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((left..right).log_scale(), (floor..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .draw()?;
    for (i, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        let marks = points.iter().map(|at| Circle::new(*at, 4, colour.filled()));
        chart.draw_series(marks)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// (number of nines, microseconds) along the distribution.
fn points(hist: &Hist) -> Vec<(f64, f64)> {
    let end = nines_max(hist);
    hist.iter_quantiles(5)
        .map(|step| {
            let quantile = step.quantile_iterated_to();
            let nines = if quantile < 1.0 {
                -(1.0 - quantile).log10()
            } else {
                end
            };
            (
                nines.min(end),
                (step.value_iterated_to() as f64 / 1e3).max(0.1),
            )
        })
        .collect()
}

/// How many nines the number of samples can bear witness to.
fn nines_max(hist: &Hist) -> f64 {
    (hist.len().max(1) as f64).log10().clamp(1.0, 7.0)
}

fn label(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    let decimals = (nines.round() as usize).saturating_sub(2);
    format!("{percent:.decimals$}%")
}

const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(90, 90, 90),
];

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;

    #[test]
    fn a_plot_names_its_curves_and_survives_a_single_sample() {
        let mut hist = Histogram::new_with_bounds(100, 1_000_000_000, 3).unwrap();
        hist.record(5_000).unwrap();
        let svg = percentiles("one", &[("beat".to_owned(), hist)]).unwrap();
        assert!(svg.contains("beat") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn bars_carry_their_names_and_figures() {
        let bar = |label: &str, middle| Bar {
            label: label.to_owned(),
            low: middle * 0.9,
            middle,
            high: middle * 1.2,
        };
        let svg = bars("cost", "µs", &[bar("one", 0.25), bar("two", 40.0)]).unwrap();
        assert!(
            svg.contains("one: 0.250") && svg.contains("two: 40.000"),
            "{svg}"
        );
        assert!(svg.contains("cost") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn curves_have_a_mark_at_each_point_and_survive_one_point_alone() {
        let axes = Axes {
            title: "growth",
            x: "sessions",
            y: "µs",
        };
        let all = vec![(1e4, 1.0), (1e5, 1.1), (1e6, 1.3)];
        let svg = curves(&axes, &[("p50".to_owned(), all)]).unwrap();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("sessions") && svg.contains("p50"));
        assert!(curves(&axes, &[("one".to_owned(), vec![(1.0, 0.0)])]).is_ok());
        assert!(curves(&axes, &[]).is_ok());
    }

    #[test]
    fn labels_are_percentiles() {
        assert_eq!(label(0.0), "0%");
        assert_eq!(label(1.0), "90%");
        assert_eq!(label(2.0), "99%");
        assert_eq!(label(4.0), "99.99%");
    }
}
