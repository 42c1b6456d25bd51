//! Gathers the settings from their four sources and hands them to the parser.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::table::{self, Kind, SECTIONS, SETTINGS, Setting};
use super::values::{Given, Source, Values};
use super::{Effective, Loaded, SettingsError, alias, typed};

/// The file that is read when none is named.
const USUAL_FILE: &str = "semel.toml";

/// Loads the settings: `flags` over `env` over the file over the defaults. A flag is a name and a value; its name may be
/// a key (`telegram.api_url`), the same as on a command line (`--telegram-api-url`), or the variable.
///
/// A `file` that is named must exist; without one `./semel.toml` is read if it is there. Files that hold secrets are read
/// here, too. A relative path in the file, and that of the default database, means a place beside the file; one in the
/// environment or in a flag means a place below the working folder.
///
/// # Errors
/// One sentence for everything that is wrong: the owner mends the settings once, not once per start.
pub fn load(
    file: Option<&Path>,
    env: &BTreeMap<String, String>,
    flags: &[(String, String)],
) -> Result<Loaded, SettingsError> {
    let path = file.unwrap_or(Path::new(USUAL_FILE));
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => load_from(Some((name.as_str(), text.as_str())), env, flags),
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => load_from(None, env, flags),
        Err(error) => Err(SettingsError { problems: vec![format!("`{name}` cannot be read: {error}.")] }),
    }
}

/// The same with the file's name and text handed in.
pub(super) fn load_from(
    file: Option<(&str, &str)>,
    env: &BTreeMap<String, String>,
    flags: &[(String, String)],
) -> Result<Loaded, SettingsError> {
    let mut gathered =
        Gathered { values: defaults(file.map(|(path, _)| path)), problems: Vec::new(), notices: Vec::new() };
    if let Some((path, text)) = file {
        gathered.take_file(path, text);
    }
    gathered.take_environment(env);
    gathered.take_flags(flags);

    let Gathered { values, mut problems, mut notices } = gathered;
    match typed::read(&values) {
        Ok((settings, more)) if problems.is_empty() => {
            notices.extend(more);
            let sources = SETTINGS.iter().map(|setting| effective(setting, &values, &settings)).collect();
            Ok(Loaded { settings, sources, notices, file: file.map(|(path, _)| PathBuf::from(path)) })
        }
        Ok(_) => Err(SettingsError { problems }),
        Err(more) => {
            problems.extend(more);
            Err(SettingsError { problems })
        }
    }
}

fn defaults(file: Option<&str>) -> Values {
    let given = |setting: &'static Setting| {
        let text = match (setting.default?, file) {
            (text, Some(file)) => as_meant_in(file, setting, text),
            (text, None) => text.to_owned(),
        };
        Some((setting.key, Given { setting, text, source: Source::Default }))
    };
    SETTINGS.iter().filter_map(given).collect()
}

/// A value of the settings file, the relative path in a database's address taken from beside that file: a command that
/// is given the file from another folder must find the same database.
fn as_meant_in(file: &str, setting: &Setting, text: &str) -> String {
    match text.strip_prefix("sqlite://") {
        Some(path) if setting.kind == Kind::Database && !path.is_empty() => format!("sqlite://{}", beside(file, path)),
        _ => text.to_owned(),
    }
}

/// `path` as it is reached from here when it stands in `file`. An absolute one stays what it is.
fn beside(file: &str, path: &str) -> String {
    match Path::new(file).parent() {
        Some(folder) if !matches!(folder.to_str(), Some("" | ".")) => folder.join(path).display().to_string(),
        _ => path.to_owned(),
    }
}

/// What `config print` shows of one setting. The text itself goes no further.
fn effective(setting: &'static Setting, values: &Values, settings: &super::Settings) -> Effective {
    match values.get(setting.key) {
        Some(given) => Effective { setting, shown: given.shown(), source: given.source.clone() },
        // The one default that depends on another setting.
        None if setting.key == "trusted_proxies" && !settings.trusted_proxies.is_empty() => {
            let networks: Vec<String> = settings.trusted_proxies.iter().map(ToString::to_string).collect();
            Effective { setting, shown: networks.join(", "), source: Source::Default }
        }
        None => Effective { setting, shown: "(not set)".to_owned(), source: Source::Default },
    }
}

/// What was found so far. A later source replaces what an earlier one gave.
struct Gathered {
    values: Values,
    problems: Vec<String>,
    notices: Vec<String>,
}

impl Gathered {
    /// Takes what one source says about one setting: several names may say the same, but not different things.
    fn take(&mut self, found: Vec<Given>) {
        let mut found = found.into_iter();
        let Some(first) = found.next() else { return };
        for other in found {
            if other.text != first.text {
                self.problems.push(format!(
                    "{} and {} both set `{}`, to different values: keep one.",
                    first.name(),
                    other.name(),
                    first.setting.key
                ));
            }
        }
        self.values.insert(first.setting.key, first);
    }

    /// The content of the file at `path`, which `name` points to.
    fn content(&mut self, name: &str, path: &str) -> Option<String> {
        match fs::read_to_string(path) {
            Ok(content) if content.trim().is_empty() => {
                self.problems.push(format!("{name} names `{path}`, which is empty."));
                None
            }
            Ok(content) => Some(content.trim().to_owned()),
            Err(error) => {
                self.problems.push(format!("{name} names `{path}`, which cannot be read: {error}."));
                None
            }
        }
    }

    fn take_environment(&mut self, env: &BTreeMap<String, String>) {
        for setting in SETTINGS {
            let mut found = Vec::new();
            for name in setting.env_names() {
                if let Some(text) = not_empty(env.get(name)) {
                    let source = Source::Environment(name.to_owned());
                    found.push(Given { setting, text: text.to_owned(), source });
                }
                let of_a_file = format!("{name}_FILE");
                if setting.may_come_from_file()
                    && let Some(path) = not_empty(env.get(&of_a_file))
                    && let Some(text) = self.content(&format!("`{of_a_file}`"), path)
                {
                    found.push(Given { setting, text, source: Source::Environment(of_a_file) });
                }
            }
            self.take(found);
        }
        for (name, value) in env {
            self.remark(name, value);
        }
    }

    /// Says what a variable that sets nothing is about. Foreign variables are none of our business.
    fn remark(&mut self, name: &str, value: &str) {
        if table::by_env(name).is_some() || alias::is_service_link(name, value) {
            return;
        }
        if let Some(says) = alias::known(name) {
            if !value.trim().is_empty() {
                self.notices.push(format!("`{name}` {says}."));
            }
        } else if name.starts_with("SEMEL_") {
            self.problems.push(unknown(&format!("`{name}`"), alias::likely_env(name)));
        }
    }

    fn take_flags(&mut self, flags: &[(String, String)]) {
        let mut found: BTreeMap<&'static str, Vec<Given>> = BTreeMap::new();
        for (name, value) in flags {
            let key = name.trim_start_matches('-').replace('-', "_");
            let setting = SETTINGS.iter().find(|setting| {
                setting.key == key || setting.key.replace('.', "_") == key || setting.env == name.as_str()
            });
            match (setting, value.trim()) {
                (Some(_), "") => {}
                (Some(setting), text) => {
                    let given = Given { setting, text: text.to_owned(), source: Source::Flag(name.clone()) };
                    found.entry(setting.key).or_default().push(given);
                }
                (None, _) => self.problems.push(unknown(&format!("flag `{name}`"), alias::likely_key(&key))),
            }
        }
        for given in found.into_values() {
            self.take(given);
        }
    }

    fn take_file(&mut self, path: &str, text: &str) {
        let document = match toml::from_str::<toml::Table>(text) {
            Ok(document) => document,
            Err(error) => {
                // The parser's own report repeats the line, and a secret may stand in it.
                let start = error.span().map_or(0, |span| span.start);
                let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
                self.problems.push(format!("{path} line {line} is not TOML: {}.", error.message()));
                return;
            }
        };
        let mut found: BTreeMap<&'static str, Vec<Given>> = BTreeMap::new();
        for (name, value) in &document {
            match value {
                toml::Value::Table(section) if SECTIONS.iter().any(|(known, _)| known == name) => {
                    for (inner, value) in section {
                        self.take_entry(path, &format!("{name}.{inner}"), value, &mut found);
                    }
                }
                toml::Value::Table(_) => {
                    self.problems.push(unknown(&format!("section `[{name}]` in {path}"), alias::likely_key(name)));
                }
                _ => self.take_entry(path, name, value, &mut found),
            }
        }
        for given in found.into_values() {
            self.take(given);
        }
    }

    /// Takes one `key = value` of the file; `key` includes its section.
    fn take_entry(
        &mut self,
        path: &str,
        key: &str,
        value: &toml::Value,
        found: &mut BTreeMap<&'static str, Vec<Given>>,
    ) {
        let of_a_file = key
            .strip_suffix("_file")
            .and_then(table::by_key)
            .filter(|setting| setting.may_come_from_file() && table::by_key(key).is_none());
        let Some(setting) = table::by_key(key).or(of_a_file) else {
            match alias::known_key(key) {
                Some(says) => self.notices.push(format!("`{key}` in {path} {says}.")),
                None => self.problems.push(match above_the_sections(key) {
                    Some(name) => {
                        format!("`{key}` in {path} is not a setting: `{name}` stands above the first [section].")
                    }
                    None => unknown(&format!("`{key}` in {path}"), alias::likely_key(key)),
                }),
            }
            return;
        };
        let Some(text) = text_of(value, setting.kind) else {
            let wrong = format!("`{key}` in {path} must be {}, not a TOML {}.", setting.unit, value.type_str());
            self.problems.push(wrong);
            return;
        };
        let text = text.trim().to_owned();
        if text.is_empty() {
            return;
        }
        let text = match of_a_file {
            Some(_) => self.content(&format!("`{key}` in {path}"), &beside(path, &text)),
            None => Some(text),
        };
        if let Some(text) = text {
            let text = as_meant_in(path, setting, &text);
            let source = Source::File(path.to_owned());
            found.entry(setting.key).or_default().push(Given { setting, text, source });
        }
    }
}

/// A TOML value as the text that the environment would hold; `None` if it cannot be a value of this kind.
fn text_of(value: &toml::Value, kind: Kind) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) if kind == Kind::Percent => Some(number.to_string()),
        toml::Value::Boolean(yes) if kind == Kind::Bool => Some(yes.to_string()),
        toml::Value::Array(items) if kind.is_list() => {
            let texts: Option<Vec<String>> = items.iter().map(|item| text_of(item, Kind::Text)).collect();
            Some(texts?.join(", "))
        }
        _ => None,
    }
}

fn not_empty(value: Option<&String>) -> Option<&str> {
    value.map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// The name in `section.name` when it is one that has no section. Whoever appends a line to the file puts it into the last
/// section, whatever it was meant to be.
fn above_the_sections(key: &str) -> Option<&str> {
    let (_, name) = key.split_once('.')?;
    let whole = table::by_key(name).is_some_and(|setting| setting.section().is_empty());
    let of_a_file = name
        .strip_suffix("_file")
        .and_then(table::by_key)
        .is_some_and(|setting| setting.section().is_empty() && setting.may_come_from_file());
    (whole || of_a_file).then_some(name)
}

fn unknown(what: &str, likely: Option<&str>) -> String {
    match likely {
        Some(likely) => format!("{what} is not a setting: did you mean `{likely}`?"),
        None => format!("{what} is not a setting: `semel config print` lists them all."),
    }
}
