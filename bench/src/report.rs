//! What was measured, as tables for people.

use std::fmt::Write;

/// One measured figure.
pub struct Figure {
    what: String,
    measured: String,
    against: String,
    aim: Option<(String, bool)>,
}

/// A part of the results.
pub struct Section {
    title: String,
    how: Vec<String>,
    figures: Vec<Figure>,
    blocks: Vec<(String, String)>,
}

impl Section {
    /// A part without figures yet.
    pub fn new(title: &str) -> Section {
        Section { title: title.to_owned(), how: Vec::new(), figures: Vec::new(), blocks: Vec::new() }
    }

    /// A sentence about how it was measured.
    pub fn how(&mut self, sentence: impl Into<String>) {
        self.how.push(sentence.into());
    }

    /// A figure without an aim. It is also told at once, because a run is long.
    pub fn figure(&mut self, what: impl Into<String>, measured: impl Into<String>, against: impl Into<String>) {
        self.add(Figure { what: what.into(), measured: measured.into(), against: against.into(), aim: None });
    }

    /// A figure with its aim, and whether it was met.
    pub fn aimed(
        &mut self,
        what: impl Into<String>,
        measured: impl Into<String>,
        against: impl Into<String>,
        aim: impl Into<String>,
        met: bool,
    ) {
        let aim = Some((aim.into(), met));
        self.add(Figure { what: what.into(), measured: measured.into(), against: against.into(), aim });
    }

    fn add(&mut self, figure: Figure) {
        eprintln!("   {}: {} {} {}", figure.what, figure.measured, figure.against, verdict(&figure));
        self.figures.push(figure);
    }

    /// Text that is printed as it is.
    pub fn block(&mut self, title: impl Into<String>, text: impl Into<String>) {
        self.blocks.push((title.into(), text.into()));
    }
}

fn verdict(figure: &Figure) -> String {
    match &figure.aim {
        None => String::new(),
        Some((aim, true)) => format!("{aim}: met"),
        Some((aim, false)) => format!("{aim}: **not met**"),
    }
}

/// The whole of the results.
pub struct Report {
    /// Sentences about the run: date, commit, machine.
    pub run: Vec<String>,
    /// Its parts.
    pub sections: Vec<Section>,
}

impl Report {
    /// As Markdown.
    pub fn text(&self) -> String {
        let mut out = String::from(
            "# What was measured\n\nWritten by `bench/run`; do not edit. Each part says when and on what; its ratios are of that one run.\n",
        );
        for section in &self.sections {
            out.push_str(&self.part(section));
        }
        out
    }

    /// `before`, the results of an earlier run, with the parts that were measured now put in the place of their own.
    pub fn put_into(&self, before: &str) -> String {
        let mut parts: Vec<String> = before.split("\n## ").map(str::to_owned).collect();
        for section in &self.sections {
            let fresh = self.part(section);
            let fresh = fresh.trim_start_matches("\n## ").to_owned();
            let title = format!("{}\n", section.title);
            match parts.iter_mut().skip(1).find(|part| part.starts_with(&title)) {
                Some(old) => *old = fresh,
                None => parts.push(fresh),
            }
        }
        parts.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join("\n\n## ") + "\n"
    }

    fn part(&self, section: &Section) -> String {
        let mut out = format!("\n## {}\n\n", section.title);
        for line in &self.run {
            let _ = writeln!(out, "- {line}");
        }
        out.push('\n');
        for sentence in &section.how {
            let _ = writeln!(out, "{sentence}");
        }
        if !section.figures.is_empty() {
            out.push_str("\n| What | Measured | Against | Aim |\n|---|---|---|---|\n");
        }
        for figure in &section.figures {
            let cells = [figure.what.as_str(), &figure.measured, &figure.against, &verdict(figure)].map(cell);
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        for (title, text) in &section.blocks {
            let _ = writeln!(out, "\n{title}\n\n```text\n{}\n```", text.trim_end());
        }
        out
    }
}

fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|")
}

/// A rate for people: `12 345 /s`.
pub fn per_second(rate: f64) -> String {
    if rate < 100.0 {
        return format!("{rate:.1} /s");
    }
    let digits = format!("{rate:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    format!("{grouped} /s")
}
