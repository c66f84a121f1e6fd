//! The pictures: round trips by payload, and how the round trips of a small message are distributed.

use std::ops::Range;

use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::style::{GRID, INK, colour, follow_the_page, width};
use super::{SMALL, heat};
use crate::Result;
use crate::rivals::contest::{Row, names};
use crate::rivals::{Wait, Work};

const SIZE: (u32, u32) = (960, 560);
/// Room for names at the right end of their lines.
const NAMES: u32 = 150;
const FONT: &str = "system-ui, sans-serif";
/// Pixels from one name to the next, at least.
const LINE: i32 = 17;
/// Rarer delays are too few for a line: nine of ten thousand and some.
const RAREST: f64 = 4.0;

/// A candidate's line.
struct Curve<'r> {
    name: &'r str,
    points: Vec<(f64, f64)>,
}

/// An axis: its numbers are logarithms to base 10, and so many of them are labelled, each with its text.
struct Axis {
    range: Range<f64>,
    marks: Vec<(f64, String)>,
}

/// Round trips by payload, both on logarithmic scales.
pub fn by_payload(rows: &[Row], wait: Wait) -> Result<Option<String>> {
    let of = |row: &&Row| row.heat.work == Work::Trip && row.heat.wait == wait && !row.name.starts_with("thread-");
    #[allow(clippy::cast_precision_loss, reason = "payloads are far below 2^52")]
    let point = |row: &Row| Some(((row.heat.len as f64).log10(), row.outcome.as_ref().ok()?.medians.candidate.log10()));
    let mut curves: Vec<_> = names(rows).into_iter().map(|name| Curve { name, points: Vec::new() }).collect();
    for curve in &mut curves {
        curve.points = rows.iter().filter(of).filter(|row| row.name == curve.name).filter_map(point).collect();
        curve.points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    curves.retain(|curve| curve.points.len() > 1);
    let marks = [(64, "64 B"), (256, "256 B"), (1 << 10, "1 KiB"), (4 << 10, "4 KiB"), (64 << 10, "64 KiB")];
    let marks = marks.into_iter().chain([(1 << 20, "1 MiB")]);
    let marks = marks.map(|(bytes, text)| (f64::from(bytes).log10(), text.to_owned())).collect();
    let axis = Axis { range: 40_f64.log10()..1.3e6_f64.log10(), marks };
    let title = format!("Round trip by payload, {}", waiting(wait));
    draw(&title, "bytes each way", axis, &curves)
}

/// Quantiles of the round trips of a small message: how long the slowest of ten, of a hundred and so on takes.
pub fn distribution(rows: &[Row], wait: Wait) -> Result<Option<String>> {
    let rarity = |quantile: f64| -(1.0 - quantile).log10();
    let curves = heat(rows, Work::Trip, wait, SMALL, false).filter_map(|row| {
        let times = &row.outcome.as_ref().ok()?.times;
        #[allow(clippy::cast_precision_loss, reason = "times are far below 2^52 ns")]
        let points = times.iter().map(|(at, took)| (rarity(*at), (*took as f64).log10()));
        let points: Vec<_> = points.filter(|point| point.0 < RAREST + 0.01).collect();
        (points.len() > 1).then_some(Curve { name: &row.name, points })
    });
    let curves: Vec<_> = curves.collect();
    let marks = [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
    let marks = marks.map(|(at, text)| (rarity(at), text.to_owned())).into();
    let axis = Axis { range: 0.0..RAREST * 1.02, marks };
    let title = format!("Round trip of {SMALL} bytes, {}", waiting(wait));
    draw(&title, "part of the round trips that took at most as long", axis, &curves)
}

fn waiting(wait: Wait) -> &'static str {
    match wait {
        Wait::Spin => "both sides spin",
        Wait::Block => "both sides sleep",
    }
}

/// Nanoseconds as people say it.
fn duration(logarithm: f64) -> String {
    let (nanoseconds, shown) = (10_f64.powf(logarithm), |value: f64| {
        let digits = if value >= 9.5 { 0 } else { 1 };
        format!("{value:.digits$}").trim_end_matches(".0").to_owned()
    });
    match nanoseconds {
        ..999.5 => format!("{} ns", shown(nanoseconds)),
        ..999_500.0 => format!("{} µs", shown(nanoseconds / 1e3)),
        _ => format!("{} ms", shown(nanoseconds / 1e6)),
    }
}

/// A range whose labelled points are given: plotters would choose its own.
struct Marked {
    range: Range<f64>,
    points: Vec<f64>,
}

impl plotters::coord::ranged1d::Ranged for Marked {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    #[allow(clippy::cast_possible_truncation, reason = "pixels")]
    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<H: plotters::coord::ranged1d::KeyPointHint>(&self, _: H) -> Vec<f64> {
        self.points.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Marked {
    fn format(value: &f64) -> String {
        value.to_string()
    }
}

fn draw(title: &str, below: &str, axis: Axis, curves: &[Curve<'_>]) -> Result<Option<String>> {
    let heights = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    let (lowest, highest) = (heights().fold(f64::INFINITY, f64::min), heights().fold(f64::NEG_INFINITY, f64::max));
    if lowest > highest {
        return Ok(None);
    }
    let heights = lowest - 0.1..highest + 0.1;
    let decades = (-3..12).flat_map(|decade| [1.0, 2.0, 5.0].map(|step: f64| f64::from(decade) + step.log10()));
    let decades = decades.filter(|mark| heights.contains(mark)).collect();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let text = |size: u32| (FONT, size).into_font().color(&INK);
        let mut chart = ChartBuilder::on(&root)
            .caption(title, text(20))
            .margin(12)
            .margin_right(NAMES)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d(
                Marked { range: axis.range.clone(), points: axis.marks.iter().map(|mark| mark.0).collect() },
                Marked { range: heights, points: decades },
            )?;
        let across = |value: &f64| {
            let mark = axis.marks.iter().find(|mark| (mark.0 - value).abs() < 1e-9);
            mark.map(|mark| mark.1.clone()).unwrap_or_default()
        };
        chart
            .configure_mesh()
            .x_label_formatter(&across)
            .y_label_formatter(&|value| duration(*value))
            .x_desc(below)
            .label_style(text(13))
            .axis_desc_style(text(14))
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for curve in curves {
            let style = colour(curve.name).stroke_width(width(curve.name));
            chart.draw_series(LineSeries::new(curve.points.iter().copied(), style))?;
            if curve.points.len() < 10 {
                let dot = |point| Circle::new(point, 3, colour(curve.name).filled());
                chart.draw_series(curve.points.iter().copied().map(dot))?;
            }
        }
        let right = chart.plotting_area().get_pixel_range().0.end;
        let ends = curves.iter().filter_map(|curve| {
            let end = curve.points.last()?;
            Some((curve.name, chart.backend_coord(end)))
        });
        // A line that ends early has its name at its end, and the others have theirs beside the picture.
        let (late, early): (Vec<_>, Vec<_>) = ends.partition(|(_, end)| end.0 > right - 60);
        let style = |name| (FONT, 13).into_font().color(&colour(name)).pos(Pos::new(HPos::Left, VPos::Center));
        for (name, end, height) in spread(early) {
            root.draw(&PathElement::new(vec![end, (end.0 + 8, height)], colour(name).mix(0.5)))?;
            root.draw(&Text::new(name.to_owned(), (end.0 + 12, height), style(name)))?;
        }
        for (name, end, height) in spread(late) {
            root.draw(&PathElement::new(vec![end, (right + 8, height)], colour(name).mix(0.5)))?;
            root.draw(&Text::new(name.to_owned(), (right + 12, height), style(name)))?;
        }
        root.present()?;
    }
    Ok(Some(follow_the_page(&svg)))
}

/// Heights for names, close to the ends of their lines, and none over another.
fn spread(mut ends: Vec<(&str, (i32, i32))>) -> Vec<(&str, (i32, i32), i32)> {
    ends.sort_by_key(|(_, end)| end.1);
    let mut placed: Vec<(&str, (i32, i32), i32)> = Vec::new();
    for (name, end) in ends {
        let height = placed.last().map_or(end.1, |above| end.1.max(above.2 + LINE));
        placed.push((name, end, height));
    }
    // Pushed down too far, they move up again from the lowest.
    let mut below = i32::try_from(SIZE.1).unwrap_or(i32::MAX) - 40;
    for (_, _, height) in placed.iter_mut().rev() {
        *height = (*height).min(below);
        below = *height - LINE;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_apart_and_within_the_picture() {
        let ends = (0..20).map(|nth| ("name", (0, 500 + nth))).collect();
        let placed = spread(ends);
        assert!(placed.is_sorted_by(|above, below| below.2 - above.2 >= LINE));
        assert!(placed.iter().all(|(_, _, height)| (0..=520).contains(height)));
    }

    #[test]
    fn durations_are_told_in_the_unit_that_people_use() {
        let told = [5.0, 200.0, 1e3, 2e4, 5e6].map(|nanoseconds: f64| duration(nanoseconds.log10()));
        assert_eq!(told, ["5 ns", "200 ns", "1 µs", "20 µs", "5 ms"]);
    }
}
