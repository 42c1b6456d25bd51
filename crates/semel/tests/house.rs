//! The rules of the house: which crate may know which, what the quiet ones never touch, that every failpoint is listed, and
//! that no migration that was merged is edited.
//!
//! Only normal dependencies count: a test may borrow from anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

#[path = "house/failpoints.rs"]
mod failpoints;
#[path = "house/migrations.rs"]
mod migrations;

/// Every crate of the house and the crates it may name. What is not here is forbidden.
const ARROWS: &[(&str, &[&str])] = &[
    // The program wires what stands below it, so it names the types of every floor.
    (
        "semel",
        &["admin", "sandbox", "shop", "kernel", "payments", "telegram", "wireguard", "ton", "gifts", "feeds", "money"],
    ),
    ("admin", &["shop"]),
    ("shop", &["kernel", "payments", "telegram", "wireguard", "ton", "gifts", "feeds", "money"]),
    // Wire types only, and the amounts in them.
    ("sandbox", &["payments", "telegram", "ton", "gifts", "money"]),
    ("payments", &["money"]),
    ("ton", &["money"]),
    ("gifts", &["money"]),
    ("telegram", &[]),
    ("wireguard", &[]),
    ("feeds", &[]),
    ("kernel", &[]),
    ("money", &[]),
];

/// The crates that may speak HTTP by themselves.
const HTTP_CLIENTS: &[&str] = &["kernel", "sandbox", "semel"];

/// The crates that only build requests and read answers, and the words that would betray a socket in them.
const SOCKETLESS: &[&str] = &["payments", "telegram", "money"];
const SOCKETS: &[&str] = &["tokio::net", "reqwest", "TcpStream", "TcpListener", "UdpSocket"];

#[test]
fn arrows_point_down() {
    let shared = table(&root().join("Cargo.toml"));
    let mut complaints = Vec::new();
    for (name, manifest) in crates() {
        for dependency in dependencies(&manifest, &shared) {
            if let Some(to) = house_name(&dependency) {
                complaints.extend(complaint(&name, to));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn an_arrow_up_or_sideways_is_forbidden() {
    for (from, to) in [
        ("kernel", "shop"),
        ("kernel", "money"),
        ("payments", "kernel"),
        ("telegram", "money"),
        ("shop", "sandbox"),
        ("shop", "semel"),
        ("sandbox", "kernel"),
        ("admin", "sandbox"),
        ("attic", "money"),
    ] {
        let sentence = complaint(from, to).unwrap_or_else(|| panic!("{from} → {to} is allowed"));
        assert!(sentence.contains(&format!("{from} → {to}")), "{sentence}");
    }
    assert_eq!(complaint("shop", "kernel"), None);
}

#[test]
fn every_crate_has_its_name_its_row_and_the_lints_of_the_house() {
    let mut complaints = Vec::new();
    for (name, manifest) in crates() {
        let package = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
        if package.and_then(house_name) != Some(&*name) {
            complaints.push(format!("crates/{name} holds the package {package:?}: folder and name differ"));
        }
        if row(&name).is_none() {
            complaints.push(format!("crates/{name} has no row in ARROWS: say what it may know"));
        }
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
        if lints != Some(true) {
            complaints.push(format!("crates/{name}/Cargo.toml lacks `[lints] workspace = true`"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn only_the_edges_name_an_http_client() {
    let shared = table(&root().join("Cargo.toml"));
    for (name, manifest) in crates() {
        let names_one = dependencies(&manifest, &shared).contains("reqwest");
        assert!(
            !names_one || HTTP_CLIENTS.contains(&name.as_str()),
            "crates/{name} names reqwest: build a request and let semel_kernel::outbound send it"
        );
    }
}

#[test]
fn the_clients_in_the_middle_open_no_socket() {
    let mut complaints = Vec::new();
    for name in SOCKETLESS {
        let files = sources(&root().join("crates").join(name).join("src"));
        assert!(!files.is_empty(), "crates/{name} has no source: this test looks in the wrong place");
        for file in files {
            let code = code(&read(&file));
            for word in SOCKETS.iter().filter(|word| code.contains(**word)) {
                complaints.push(format!("{} mentions {word}: crates/{name} opens no socket", file.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn what_is_only_said_is_not_code() {
    let said = r##"
        //! Knows no reqwest.
        /// Nor a TcpStream.
        let c = '"'; // UdpSocket
        let url = "https://example.org/\"reqwest\""; open(url);
        /* TcpListener */ let raw = r#"tokio::net "and" reqwest"#;
        fn of<'a>(text: &'a str) -> char { '\'' }
    "##;
    let code = code(said);
    assert_eq!(SOCKETS.iter().find(|word| code.contains(**word)), None, "{code}");
    for word in ["let url", "open(url)", "let raw", "fn of<'a>(text: &'a str)"] {
        assert!(code.contains(word), "{word} is lost: {code}");
    }
}

/// The sentence about a forbidden arrow; nothing when it is allowed.
fn complaint(from: &str, to: &str) -> Option<String> {
    let allowed = row(from).unwrap_or_default();
    (!allowed.contains(&to)).then(|| {
        let may = if allowed.is_empty() { "no crate of the house".to_owned() } else { allowed.join(", ") };
        format!("forbidden arrow {from} → {to}: crates/{from} may name {may}")
    })
}

fn row(name: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

/// `semel-X` is our crate `X`, `semel` the program; anything else is not of the house.
fn house_name(package: &str) -> Option<&str> {
    if package == "semel" { Some("semel") } else { package.strip_prefix("semel-") }
}

/// The packages a crate names outside of tests, under their true names.
fn dependencies(manifest: &Table, shared: &Table) -> BTreeSet<String> {
    let empty = Table::new();
    let aliases = shared
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(Value::as_table)
        .unwrap_or(&empty);

    let mut sections: Vec<&Table> = manifest.get("dependencies").and_then(Value::as_table).into_iter().collect();
    for target in manifest.get("target").and_then(Value::as_table).unwrap_or(&empty).values() {
        sections.extend(target.get("dependencies").and_then(Value::as_table));
    }

    let mut names = BTreeSet::new();
    for (name, how) in sections.into_iter().flatten() {
        let renamed = how.get("package").or_else(|| aliases.get(name.as_str()).and_then(|alias| alias.get("package")));
        names.insert(renamed.and_then(Value::as_str).unwrap_or(name).to_owned());
    }
    names
}

/// The manifests of the house by folder.
fn crates() -> BTreeMap<String, Table> {
    let mut crates = BTreeMap::new();
    for folder in entries(&root().join("crates")) {
        let manifest = folder.join("Cargo.toml");
        if manifest.is_file() {
            let name = folder.file_name().and_then(|name| name.to_str()).expect("a folder with a plain name");
            crates.insert(name.to_owned(), table(&manifest));
        }
    }
    assert!(crates.contains_key("semel"), "this test looks in the wrong place");
    crates
}

/// Every Rust file under `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in entries(folder) {
        if entry.is_dir() {
            files.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
    files
}

/// A source without its comments and without what stands in its literals: what it says is not what it does.
fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let said = comment(rest).or_else(|| text_literal(rest)).or_else(|| character(rest));
        code.push(if said.is_some() { ' ' } else { next });
        rest = &rest[said.unwrap_or(next.len_utf8())..];
    }
    code
}

/// How long the comment is with which `text` begins.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then(|| text.find("*/").map_or(text.len(), |end| end + 2))
}

/// How long the text literal is with which `text` begins: `"…"`, `r"…"`, `r#"…"#`.
fn text_literal(text: &str) -> Option<usize> {
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inner = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let before = text.len() - inner.len();
        return Some(inner.find(&end).map_or(text.len(), |at| before + at + end.len()));
    }
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, letter) in inner.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    Some(text.len())
}

/// How long the character literal is with which `text` begins; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    if inner.starts_with('\\') {
        // The letter after the backslash may be a quotation mark itself.
        return Some(3 + inner.get(2..)?.find('\'')? + 1);
    }
    let first = inner.chars().next()?;
    inner[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8() + 2)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    listing.map(|entry| entry.expect("a readable entry").path()).collect()
}

fn table(manifest: &Path) -> Table {
    toml::from_str(&read(manifest)).unwrap_or_else(|error| panic!("{}: {error}", manifest.display()))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
