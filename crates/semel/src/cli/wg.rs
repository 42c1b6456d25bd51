//! `semel wg`: file and interface beside what is wanted of them, and what is brought in from elsewhere.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use semel_shop::vpn::import::{Adopt, adoptions};
use semel_wireguard::{Conf, PublicKey, SeenPeer};

use super::ask::{Asker, text};
use super::{WgVerb, out};

mod init;
mod new_key;

pub use init::{InitArgs, init};
pub use new_key::{NewKeyArgs, new_key};

const SERVER: &str = "/api/v1/servers/local";
/// How long `apply` watches.
const WATCHED: usize = 60;
const LOOK: Duration = Duration::from_millis(500);
/// After so many looks trouble that was there before is there still.
const STALE: usize = 2;
/// Peers in one request: well below the usual limit of a body.
const PIECE: usize = 400;

/// Runs `verb`.
pub async fn wg(asker: &Asker, verb: WgVerb) -> anyhow::Result<ExitCode> {
    match verb {
        WgVerb::Plan => plan(asker).await,
        WgVerb::Apply => apply(asker).await,
        WgVerb::Import { file, adopt, yes } => import(asker, &file, adopt.as_deref(), yes).await,
        WgVerb::Export => export(asker).await,
        WgVerb::Init(_) | WgVerb::NewKey(_) => anyhow::bail!("this command needs no program"),
    }
}

async fn plan(asker: &Asker) -> anyhow::Result<ExitCode> {
    let plan = asker.get(&format!("{SERVER}/plan")).await?;
    out::say(&page(&plan))?;
    Ok(if plan["in_step"] == true { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// What differs, a line a peer, as a diff writes it.
fn page(plan: &Value) -> String {
    let mut lines = Vec::new();
    if plan["whole"] == false {
        lines.push(
            "file       somebody changed what stands between the fence lines; the next apply writes it anew".into(),
        );
    }
    for place in ["file", "interface"] {
        let there = &plan[place];
        for key in list(&there["yours"]) {
            lines.push(format!(
                "{place:<10} ! {} is yours and has no access any more: delete it in the file",
                text(key)
            ));
        }
        for (what, sign) in [("add", "+"), ("change", "~"), ("remove", "-"), ("foreign", "?")] {
            for key in there[what].as_array().into_iter().flatten() {
                lines.push(format!("{place:<10} {sign} {}", text(key)));
            }
        }
        if there.is_null() {
            lines.push(format!("{place:<10} is not brought to anything: peers go to the file only"));
        }
    }
    let has_foreign = ["file", "interface"].iter().any(|place| list(&plan[*place]["foreign"]).next().is_some());
    if has_foreign {
        lines.push("? is a peer that is not Semel's: it stays as it is, and nobody else gets its addresses".into());
    }
    let verdict = match plan["in_step"].as_bool() {
        Some(true) => "everything is as it is wanted",
        _ => "+ is added, ~ changed, - removed by `semel wg apply`; ? is foreign and stays",
    };
    lines.push(verdict.to_owned());
    lines.join("\n")
}

async fn apply(asker: &Asker) -> anyhow::Result<ExitCode> {
    let before = asker.post(&format!("{SERVER}/apply"), json!({})).await?;
    if !asker.is_running() {
        return out::lines("it is written down, and `semel serve` does it when it runs");
    }
    let mut shown = before.clone();
    let mut told = false;
    for n in 0..WATCHED {
        // The wish raised what is wanted before it was answered, so in step means that it was done, in the first answer, too.
        if shown["in_step"] == true {
            return out::lines("file and interface are as they are wanted");
        }
        tokio::time::sleep(LOOK).await;
        shown = asker.get(SERVER).await?;
        let trouble = shown["trouble"].as_str();
        // What was wrong before may be over at the first look.
        let is_new = shown["trouble"] != before["trouble"] || n >= STALE;
        if let Some(trouble) = trouble.filter(|_| is_new && !told) {
            told = true;
            let interface = text(&shown["interface"]);
            out::complain(&format!(
                "it failed and is tried again for a while: {trouble}. Is the interface up: wg-quick up {interface}"
            ));
        }
    }
    match shown["trouble"].as_str() {
        Some(trouble) => anyhow::bail!("it failed and is tried again: {trouble}"),
        None => anyhow::bail!("it is not done yet; `semel wg plan` says what is missing"),
    }
}

async fn import(asker: &Asker, file: &Path, adopt: Option<&Path>, yes: bool) -> anyhow::Result<ExitCode> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let conf = Conf::parse(&bytes).map_err(|error| anyhow!("{}, {error}", file.display()))?;
    let (owners, adopted) = match adopt {
        None => (String::new(), Vec::new()),
        Some(path) => csv(path)?,
    };
    let peers = candidates(&conf, &adopted);
    if let Some((number, line)) = line_of_nobody(&peers, &owners) {
        anyhow::bail!("line {number} of the CSV is about no peer of {}: {line}", file.display());
    }
    let pieces = pieces(&peers, &owners);
    anyhow::ensure!(
        !pieces.is_empty(),
        "{} has no peers that are not ours already; of another database's, --adopt takes over those that the CSV names",
        file.display()
    );
    // All is looked at before any of it is done.
    let mut conflicts = 0;
    for piece in &pieces {
        let answer = asker.post(&format!("{SERVER}/import"), body(piece, true)).await?;
        conflicts += answer["conflicts"].as_u64().unwrap_or(0);
        if !yes {
            out::say(&imported(&answer))?;
        }
    }
    anyhow::ensure!(conflicts == 0 || !yes, "{conflicts} peers cannot be adopted, so nothing was changed");
    if !yes && conflicts > 0 {
        let them = if conflicts == 1 { "1 peer".to_owned() } else { format!("{conflicts} peers") };
        return out::lines(&format!(
            "nothing was changed, and --yes would change nothing: {them} cannot be adopted, see `conflict`. Mend the CSV or the \
             file first"
        ));
    }
    if !yes {
        return out::lines("nothing was changed; --yes does it");
    }
    for piece in &pieces {
        let answer = asker.post(&format!("{SERVER}/import"), body(piece, false)).await?;
        out::say(&imported(&answer))?;
    }
    out::lines("done; the file is as it was, and stays the owner of these peers until you delete them there")
}

/// The CSV at `path`, read as a whole before anything is asked, so that its lines are counted once.
fn csv(path: &Path) -> anyhow::Result<(String, Vec<Adopt>)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {} as text", path.display()))?;
    // Some Windows programs put it before the first line.
    let text = text.trim_start_matches('\u{feff}').to_owned();
    let adopted = adoptions(&text).map_err(|error| anyhow!("{}, {error}", path.display()))?;
    Ok((text, adopted))
}

/// The peers of the file that may be taken over: those outside of our lines, and of those between them the ones that the CSV
/// names, which another database wrote there. The program says of each whether it is its own already.
fn candidates(conf: &Conf, adopted: &[Adopt]) -> Vec<SeenPeer> {
    let named: BTreeSet<PublicKey> = adopted.iter().map(|adopt| adopt.public_key).collect();
    let fenced = conf.ours().into_iter().filter(|peer| named.contains(&peer.public_key));
    conf.foreign().into_iter().chain(fenced).collect()
}

/// The first line of the map that begins with the key of none of the `peers`: misspelt, it would cost a customer the access.
fn line_of_nobody<'a>(peers: &[SeenPeer], owners: &'a str) -> Option<(usize, &'a str)> {
    let keys: BTreeSet<String> = peers.iter().map(|peer| peer.public_key.to_string()).collect();
    let names_one = |line: &str| {
        let first = line.trim().split(',').next().unwrap_or_default();
        keys.contains(first.trim().trim_matches('"'))
    };
    let of_nobody = |(number, line): &(usize, &str)| {
        let bare = line.trim();
        let is_heading = *number == 1 && bare.starts_with("public_key");
        !bare.is_empty() && !bare.starts_with('#') && !is_heading && !names_one(line)
    };
    (1..).zip(owners.lines()).find(of_nobody)
}

/// Some peers of the file, and the lines of the map that are about them.
struct Piece {
    file: String,
    owners: String,
}

/// The peers alone, in pieces that a request may hold. The server's own key goes nowhere.
fn pieces(peers: &[SeenPeer], owners: &str) -> Vec<Piece> {
    peers
        .chunks(PIECE)
        .map(|peers| {
            let keys: Vec<String> = peers.iter().map(|peer| peer.public_key.to_string()).collect();
            let about = |line: &&str| keys.iter().any(|key| line.trim().trim_start_matches('"').starts_with(key));
            Piece {
                file: peers.iter().map(section).collect(),
                owners: owners.lines().filter(about).map(|line| format!("{line}\n")).collect(),
            }
        })
        .collect()
}

fn section(peer: &SeenPeer) -> String {
    let mut text = String::from("[Peer]\n");
    if let Some(name) = &peer.name {
        text.push_str(&format!("# friendly_name = {name}\n"));
    }
    text.push_str(&format!("PublicKey = {}\n", peer.public_key));
    if let Some(preshared) = &peer.preshared {
        text.push_str(&format!("PresharedKey = {}\n", preshared.to_base64().as_str()));
    }
    let allowed: Vec<String> = peer.allowed.iter().map(ToString::to_string).collect();
    if !allowed.is_empty() {
        text.push_str(&format!("AllowedIPs = {}\n", allowed.join(", ")));
    }
    text.push('\n');
    text
}

fn body(piece: &Piece, dry_run: bool) -> Value {
    json!({ "file": piece.file, "adopt": piece.owners, "dry_run": dry_run })
}

fn imported(answer: &Value) -> String {
    let lines: Vec<String> = list(&answer["peers"])
        .map(|peer| {
            let more = match peer["becomes"].as_str() {
                Some("adopted") => format!("of {} until {}", text(&peer["telegram_id"]), text(&peer["until"])),
                Some("reserved") => {
                    let kept: Vec<String> = list(&peer["addresses"]).map(text).collect();
                    format!("stays foreign; kept for it: {}", if kept.is_empty() { "-".into() } else { kept.join(" ") })
                }
                Some("known") => format!("is {} already", text(&peer["peer"])),
                _ => text(&peer["why"]),
            };
            format!("{:<9} {}  {} {more}", text(&peer["becomes"]), text(&peer["public_key"]), text(&peer["name"]))
        })
        .collect();
    lines.join("\n")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Peers that have access now, as the map that `import --adopt` reads. No secrets: the file itself has the preshared keys.
async fn export(asker: &Asker) -> anyhow::Result<ExitCode> {
    let mut ends: BTreeMap<String, String> = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let answer = asker.get(&format!("/api/v1/subscriptions?limit=200&cursor={cursor}")).await?;
        ends.extend(list(&answer["items"]).map(|sub| (text(&sub["id"]), text(&sub["paid_until"]))));
        match answer["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    out::say("public_key,telegram_id,until")?;
    for state in ["pending", "active"] {
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/peers?server=local&state={state}&limit=200&cursor={cursor}");
            let answer = asker.get(&path).await?;
            for peer in list(&answer["items"]) {
                let until = ends.get(&text(&peer["subscription"])).cloned().unwrap_or_default();
                out::say(&format!("{},{},{until}", text(&peer["public_key"]), text(&peer["telegram_id"])))?;
            }
            match answer["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_like_a_diff() {
        let shown = page(&json!({
            "in_step": false, "whole": false,
            "file": { "add": ["A="], "change": [], "remove": ["B="], "foreign": [], "yours": ["E="] },
            "interface": { "add": [], "change": ["C="], "remove": [], "foreign": ["D="] },
        }));
        for line in ["file       + A=", "file       - B=", "interface  ~ C=", "interface  ? D="] {
            assert!(shown.lines().any(|found| found == line), "{line} is missing in\n{shown}");
        }
        assert!(shown.starts_with("file       somebody changed"));
        assert!(shown.contains("file       ! E= is yours"), "{shown}");
        assert!(shown.contains("? is a peer that is not Semel's"), "{shown}");
        let alone = page(&json!({ "in_step": true, "whole": true, "file": { "add": [] }, "interface": null }));
        assert!(alone.ends_with("everything is as it is wanted") && alone.contains("to the file only"));
    }

    #[test]
    fn peers_are_sent_without_the_servers_key_and_with_their_own_lines_of_the_map() {
        let (one, other) =
            ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=");
        let file = format!(
            "[Interface]\nPrivateKey = {one}\nListenPort = 51820\n\n[Peer]\nPublicKey = {other}\nAllowedIPs = 10.8.0.2/32\n"
        );
        let conf = Conf::parse(file.as_bytes()).expect("a file");
        let map = format!("public_key,telegram_id,until\n{other},42,2027-01-31\n{one},43,2027-01-31\n");
        let pieces = pieces(&conf.foreign(), &map);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].file, format!("[Peer]\nPublicKey = {other}\nAllowedIPs = 10.8.0.2/32\n\n"));
        assert_eq!(pieces[0].owners, format!("{other},42,2027-01-31\n"));
    }

    #[test]
    fn of_the_peers_between_our_lines_only_those_of_the_csv_are_taken_over() {
        let (one, other) =
            ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=");
        let file = format!(
            "[Interface]\nListenPort = 1\n\n# semel: begin\n[Peer]\nPublicKey = {one}\nAllowedIPs = 10.8.0.2/32\n\n\
             [Peer]\nPublicKey = {other}\nAllowedIPs = 10.8.0.3/32\n\n# semel: end\n"
        );
        let conf = Conf::parse(file.as_bytes()).expect("a file");
        assert!(candidates(&conf, &[]).is_empty());
        let adopted = adoptions(&format!("{other},42,2027-01-31")).expect("a map");
        let found: Vec<String> = candidates(&conf, &adopted).iter().map(|peer| peer.public_key.to_string()).collect();
        assert_eq!(found, [other]);
    }

    #[test]
    fn an_import_says_what_becomes_of_each_peer() {
        let shown = imported(&json!({ "peers": [
            { "becomes": "adopted", "public_key": "A=", "name": "anna", "telegram_id": 42, "until": "T" },
            { "becomes": "conflict", "public_key": "B=", "why": "10.8.0.2 rests" },
        ] }));
        assert_eq!(shown, "adopted   A=  anna of 42 until T\nconflict  B=   10.8.0.2 rests");
    }
}
