//! Writing to the terminal. A closed pipe (`semel order list | head`) ends quietly.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Prints `text` and ends well.
pub fn lines(text: &str) -> anyhow::Result<ExitCode> {
    say(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints `text` and a line end.
pub fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// One sentence on standard error.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "semel: {text}");
}

/// A table with aligned columns.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text = line(head.to_vec());
    for row in rows {
        text.push('\n');
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}
