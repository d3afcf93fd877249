//! The colour of each status.
//!
//! Must never refuse a status: an unknown one is white.

/// The X11 name of a status's colour.
pub fn status_color(status: &str) -> &'static str {
    match status {
        "Pending" => "beige",
        "Running" | "Running Steps" | "Running Async" => "orange",
        "Deferred" => "khaki",
        "Finished" => "palegreen",
        "Failed" | "Cancelled" | "Timed Out" => "indianred",
        "Skipped" => "lightgrey",
        _ => "white",
    }
}
