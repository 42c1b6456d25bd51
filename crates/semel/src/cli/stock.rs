//! `semel stock import`: a file's lines onto a shelf, with what it was shown afterwards, so that a wrong file is seen at once; and
//! `semel stock withdraw`, which takes them off again.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::ask::Asker;
use super::out;

/// Below the server's body limit, with room for JSON's own characters.
const PART_BYTES: usize = 120 * 1024;
const PART_ITEMS: usize = 1_000;
/// So much of an item is shown: it is goods, and the terminal is no place for them.
const SHOWN_CHARS: usize = 4;
const USUAL_SETTINGS: &str = "semel.toml";

/// Puts each line of `file` on the shelf of `product`.
pub async fn import(asker: &Asker, product: &str, file: &Path) -> anyhow::Result<ExitCode> {
    let content = read(asker, file, "every line of it would be sold: nothing was added")?;
    let items = lines(&content);
    let (Some(first), Some(last)) = (items.first(), items.last()) else {
        anyhow::bail!("{} holds no items; write one a line", file.display());
    };
    let bar = ProgressBar::new(items.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} items, {eta} left")?);
    let (mut added, mut duplicates) = (0, 0);
    for part in parts(&items) {
        let answer = asker.post(&format!("/api/v1/products/{product}/stock"), json!({ "items": part })).await?;
        added += answer["added"].as_i64().unwrap_or(0);
        duplicates += answer["duplicates"].as_i64().unwrap_or(0);
        bar.inc(part.len() as u64);
    }
    bar.finish_and_clear();
    let lines = if items.len() == 1 { "1 line".to_owned() } else { format!("{} lines", items.len()) };
    out::lines(&format!(
        "{added} added; {duplicates} left out, twice in the file or there before: nothing is sold twice\n\
         {lines}: the first is {}, the last {}",
        masked(first),
        masked(last)
    ))
}

/// Takes items off the shelf of `product`: `keys`, or each line of `file`. One request, so that all of them go or none.
pub async fn withdraw(asker: &Asker, product: &str, keys: &[String], file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let content = match file {
        Some(file) => read(asker, file, "none of it is goods: nothing was withdrawn")?,
        None => keys.join("\n"),
    };
    let items = lines(&content);
    anyhow::ensure!(!items.is_empty(), "there are no items; write one a line");
    anyhow::ensure!(
        parts(&items).len() == 1,
        "{} items are more than one request holds ({PART_ITEMS}, and {} KiB), and they go all or none: nothing was withdrawn; \
         split the file",
        items.len(),
        PART_BYTES / 1024
    );
    let path = format!("/api/v1/products/{product}/stock/withdraw");
    let withdrawn = asker.post(&path, json!({ "items": items })).await?["withdrawn"].as_i64().unwrap_or(0);
    out::lines(&format!("{withdrawn} withdrawn; they can be imported again"))
}

/// What a file or the standard input says. Settings are no goods; `otherwise` tells what would come of it.
fn read(asker: &Asker, file: &Path, otherwise: &str) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut content = String::new();
        std::io::stdin().read_to_string(&mut content).context("cannot read standard input as text")?;
        Ok(content)
    } else {
        anyhow::ensure!(
            !is_settings(file, asker.settings_file()),
            "{} holds settings with your tokens, and {otherwise}",
            file.display()
        );
        std::fs::read_to_string(file).with_context(|| format!("cannot read {} as text", file.display()))
    }
}

/// The items of a text, one a line.
fn lines(content: &str) -> Vec<&str> {
    content.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// Whether `file` is the settings file in use, or one that is called like it: its lines are secrets and no goods.
fn is_settings(file: &Path, in_use: Option<&Path>) -> bool {
    let named_so = file.file_name().is_some_and(|name| name == USUAL_SETTINGS);
    let the_same = match (file.canonicalize(), in_use.map(Path::canonicalize)) {
        (Ok(file), Some(Ok(in_use))) => file == in_use,
        _ => false,
    };
    named_so || the_same
}

/// The beginning of an item, never all of it.
fn masked(item: &str) -> String {
    let shown = SHOWN_CHARS.min(item.chars().count() / 2);
    format!("{}…", item.chars().take(shown).collect::<String>())
}

/// The items in pieces that fit into one request each.
fn parts<'a>(items: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut parts: Vec<Vec<&str>> = vec![Vec::new()];
    let mut bytes = 0;
    for &item in items {
        let full = parts.last().is_some_and(|part| part.len() >= PART_ITEMS || bytes + item.len() > PART_BYTES);
        if full {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += item.len() + 8;
        if let Some(part) = parts.last_mut() {
            part.push(item);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_never_shown_whole() {
        assert_eq!(masked("AAAA-BBBB-CCCC"), "AAAA…");
        assert_eq!(masked("AAA-1"), "AA…");
        assert_eq!(masked("ключ-123456"), "ключ…");
        assert_eq!(masked("7"), "…");
    }

    #[test]
    fn settings_are_no_goods_whatever_way_leads_to_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mine, keys) = (folder.path().join("shop.toml"), folder.path().join("keys.txt"));
        std::fs::write(&mine, "api_token = \"x\"\n").expect("a file");
        std::fs::write(&keys, "AAAA\n").expect("a file");
        let way_round = folder.path().join(".").join("shop.toml");
        assert!(is_settings(&way_round, Some(&mine)));
        assert!(!is_settings(&keys, Some(&mine)));
        assert!(!is_settings(&keys, None));
        assert!(is_settings(Path::new("elsewhere/semel.toml"), None));
    }

    #[test]
    fn many_items_go_in_pieces_and_none_is_lost() {
        let lines: Vec<String> = (0..2_500).map(|n| format!("key-{n}")).collect();
        let items: Vec<&str> = lines.iter().map(String::as_str).collect();
        let parts = parts(&items);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        assert_eq!(parts.concat(), items);
    }
}
