//! What the owner sees: `config print`, `config explain NAME` and the example file.

use std::fmt::Write;

use super::table::{self, SECTIONS, SETTINGS, Setting};
use super::{Loaded, alias};

/// The effective settings with their sources, one line each. Secrets show as `(set)` or `(not set)`.
pub fn print(loaded: &Loaded) -> String {
    let width = SETTINGS.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
    let mut out = String::new();
    for effective in &loaded.sources {
        let key = effective.setting.key;
        let _ = writeln!(out, "{key:<width$} = {}  # {}", effective.shown, effective.source);
    }
    out
}

/// Explains a setting by its key, its variable or an alias; a section by its name; a known name that does nothing.
///
/// # Errors
/// A sentence when nothing is called so, with the likely name if there is one.
pub fn explain(name: &str) -> Result<String, String> {
    let name = name.trim();
    let lower = name.to_ascii_lowercase();
    let upper = name.to_ascii_uppercase();
    if let Some(setting) = table::by_key(&lower).or_else(|| table::by_env(&upper)) {
        return Ok(explain_setting(setting));
    }
    if let Some((section, sentence)) = SECTIONS.iter().find(|(section, _)| *section == lower) {
        return Ok(explain_section(section, sentence));
    }
    if let Some(says) = alias::known(&upper) {
        return Ok(format!("{upper} {says}.\n"));
    }
    let likely = if upper.starts_with("SEMEL_") { alias::likely_env(&upper) } else { alias::likely_key(&lower) };
    match likely {
        Some(likely) => Err(format!("`{name}` is not a setting: did you mean `{likely}`?")),
        None => Err(format!("`{name}` is not a setting: `semel config print` lists them all.")),
    }
}

fn explain_setting(setting: &Setting) -> String {
    let mut out = format!("{}\n  {}\n", setting.key, setting.one_line);
    if !setting.more.is_empty() {
        let _ = writeln!(out, "  {}", setting.more);
    }
    let _ = writeln!(out, "  Value: {}.", setting.unit);
    let _ = match setting.default {
        Some(default) => writeln!(out, "  Default: {default}."),
        None => writeln!(out, "  Default: not set."),
    };
    let _ = match setting.section() {
        "" => writeln!(out, "  In semel.toml: {}, above the first section.", setting.name()),
        section => writeln!(out, "  In semel.toml: {} under [{section}].", setting.name()),
    };
    let _ = writeln!(out, "  In the environment: {}.", names(setting));
    if !setting.aliases.is_empty() {
        let _ = writeln!(out, "  Also accepted there: {}.", setting.aliases.join(", "));
    }
    if setting.secret {
        out.push_str("  Secret: never printed.\n");
    }
    out
}

fn explain_section(section: &str, sentence: &str) -> String {
    let mut out = format!("[{section}]\n  {sentence}\n");
    for setting in SETTINGS.iter().filter(|setting| setting.section() == section) {
        let _ = writeln!(out, "  {}: {}", setting.name(), setting.one_line);
    }
    out
}

/// The variable, and the one that points to a file.
fn names(setting: &Setting) -> String {
    if setting.may_come_from_file() {
        format!("{0}, or {0}_FILE with the path of a file that holds it", setting.env)
    } else {
        setting.env.to_owned()
    }
}

const EXAMPLE_HEAD: &str = "\
# The settings of Semel. Copy this file to semel.toml and take the # away from what you change: each line shows the
# default, and \"\" means not set. `semel config explain NAME` says more, `semel config print` shows what is in force.
#
# Every value can be given in the environment under the name that stands with it. A flag wins over the environment, the
# environment over this file. Where NAME_FILE is offered, it holds the path of a file that holds the value; here the same
# is written as name_file.
";

/// The content of `semel.example.toml`: every setting with its unit, its variable and one sentence, all commented out.
pub fn render_example() -> String {
    let mut out = EXAMPLE_HEAD.to_owned();
    let mut section = "";
    for setting in SETTINGS {
        if setting.section() != section {
            section = setting.section();
            let sentence = SECTIONS.iter().find(|(name, _)| *name == section).map_or("", |(_, sentence)| *sentence);
            let _ = write!(out, "\n\n# {sentence}\n[{section}]\n");
        }
        let file = if setting.may_come_from_file() { format!(", {}_FILE", setting.env) } else { String::new() };
        let value = match setting.default {
            Some(default) if setting.kind.is_bare() => default.to_owned(),
            Some(default) => format!("\"{default}\""),
            None => "\"\"".to_owned(),
        };
        let _ = write!(
            out,
            "\n# {}\n# Value: {}. Environment: {}{file}.\n#{} = {value}\n",
            setting.one_line,
            setting.unit,
            setting.env,
            setting.name(),
        );
    }
    out
}
