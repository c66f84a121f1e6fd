//! How pictures look, on a light page and on a dark one.

use plotters::style::RGBColor;

/// Text and frame, on a light page.
pub(super) const INK: RGBColor = RGBColor(36, 41, 47);
/// Lines of the grid, on a light page.
pub(super) const GRID: RGBColor = RGBColor(216, 222, 228);
const DARK_INK: &str = "#D0D7DE";
const DARK_GRID: &str = "#30363D";

/// Has the picture of the two colours above follow the page: `svg` is on a transparent ground.
pub(super) fn follow_the_page(svg: &str) -> String {
    let hex = |RGBColor(red, green, blue): RGBColor| format!("#{red:02X}{green:02X}{blue:02X}");
    let rule = |from: RGBColor, to: &str| {
        let from = hex(from);
        format!("[fill=\"{from}\"]{{fill:{to}}}[stroke=\"{from}\"]{{stroke:{to}}}")
    };
    let rules = rule(INK, DARK_INK) + &rule(GRID, DARK_GRID);
    let style = format!("<style>@media (prefers-color-scheme:dark){{{rules}}}</style>");
    match svg.find("<svg").and_then(|start| Some(start + svg[start..].find('>')? + 1)) {
        Some(at) => format!("{}\n{style}{}", &svg[..at], &svg[at..]),
        None => svg.to_owned(),
    }
}

/// A candidate's colour: families share a hue, and all of them are seen on both pages.
pub(super) fn colour(name: &str) -> RGBColor {
    match name {
        "memit-ring" => RGBColor(255, 107, 53),
        "memit-send" => RGBColor(218, 41, 28),
        "memit-call" => RGBColor(232, 72, 138),
        "memit-loan" => RGBColor(240, 160, 32),
        "iceoryx2-copy" => RGBColor(31, 111, 235),
        "iceoryx2-loan" => RGBColor(84, 174, 255),
        "iceoryx2-request" => RGBColor(110, 84, 220),
        "raw-sync" => RGBColor(26, 160, 120),
        "ipc-channel" => RGBColor(110, 160, 30),
        "unix-seqpacket" => RGBColor(140, 149, 159),
        "unix-stream" => RGBColor(110, 119, 129),
        "pipe" => RGBColor(156, 114, 72),
        _ => RGBColor(170, 120, 190),
    }
}

/// Whether its line is thick: memit's own.
pub(super) fn width(name: &str) -> u32 {
    if name.starts_with("memit") { 3 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_stand_first_in_the_picture() {
        let followed = follow_the_page("<?xml?><svg width=\"1\">\n<g fill=\"#24292F\"/></svg>");
        assert!(followed.starts_with("<?xml?><svg width=\"1\">\n<style>"), "{followed}");
        assert!(followed.contains("[fill=\"#24292F\"]{fill:#D0D7DE}"), "{followed}");
        assert!(followed.ends_with("<g fill=\"#24292F\"/></svg>"), "{followed}");
    }
}
