//! A `wg` for tests: a shell script that keeps its peers in a file and misbehaves when it is told to.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::Tool;
use crate::key::PublicKey;
use crate::peer::testing::key;

const SCRIPT: &str = r#"#!/bin/sh
here=${0%/*}
echo "$*" >> "$here/args"
mode=work
[ -f "$here/mode-$1" ] && mode=$(cat "$here/mode-$1")
case "$mode" in
fail) cat "$here/said-$1" >&2; exit 1 ;;
hang) echo $$ > "$here/pid"; exec sleep 600 ;;
lie) exit 0 ;;
garbage) echo "Segmentation fault"; exit 0 ;;
esac

forget() {
	grep -v "^$1" "$here/peers" > "$here/next"
	mv "$here/next" "$here/peers"
}
remember() {
	[ -n "$key" ] || return 0
	if [ -z "$preshared" ]; then
		preshared=$(grep "^$key" "$here/peers" | cut -f 2)
	fi
	[ "$preshared" = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" ] && preshared=
	forget "$key"
	printf '%s\t%s\t(none)\t%s\t0\t0\t0\toff\n' "$key" "${preshared:-(none)}" "${allowed:-(none)}" >> "$here/peers"
}

case "$1" in
show)
	cat "$here/interface" "$here/peers" ;;
addconf)
	cat "$3" > "$here/piece"
	cat "$here/piece" >> "$here/heard"
	if [ -f "$here/refused" ] && grep -qF -f "$here/refused" "$here/piece"; then
		echo "Unable to modify interface: Invalid argument" >&2
		exit 1
	fi
	key= preshared= allowed=
	while read -r name equals value; do
		case "$name" in
		"[Peer]") remember; key= preshared= allowed= ;;
		PublicKey) key=$value ;;
		PresharedKey) preshared=$value ;;
		AllowedIPs) allowed=$(echo "$value" | tr -d ' ') ;;
		esac
	done < "$here/piece"
	remember ;;
set)
	shift 2
	while [ $# -gt 2 ]; do
		forget "$2"
		shift 3
	done ;;
esac
exit 0
"#;

/// A tool, and what it was asked.
pub(crate) struct Fake {
    folder: TempDir,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let fake = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(fake.path("script"), SCRIPT).unwrap();
        fs::write(fake.path("interface"), format!("(none)\t{}\t51820\toff\n", key(u32::MAX))).unwrap();
        for name in ["peers", "args", "heard"] {
            fs::write(fake.path(name), "").unwrap();
        }
        // Another program writes the one that is run: a file that a child of a neighbouring test still holds open for
        // writing cannot be run.
        let copied = Command::new("cp").arg(fake.path("script")).arg(fake.path("wg")).status().unwrap();
        let made = Command::new("chmod").arg("700").arg(fake.path("wg")).status().unwrap();
        assert!(copied.success() && made.success());
        fake
    }

    pub(crate) fn tool(&self) -> Tool {
        Tool { program: self.path("wg"), deadline: Duration::from_secs(60) }
    }

    /// Each call's arguments.
    pub(crate) fn args(&self) -> Vec<String> {
        self.text("args").lines().map(str::to_owned).collect()
    }

    /// All that came through standard input.
    pub(crate) fn heard(&self) -> String {
        self.text("heard")
    }

    /// The process that hangs.
    pub(crate) fn pid(&self) -> u32 {
        self.text("pid").trim().parse().unwrap()
    }

    /// From now on calls with this verb do what they shall.
    pub(crate) fn works(&self, verb: &str) {
        self.mode(verb, "work");
    }

    /// From now on calls with this verb end badly and say `said`.
    pub(crate) fn fails(&self, verb: &str, said: &str) {
        fs::write(self.path(&format!("said-{verb}")), said).unwrap();
        self.mode(verb, "fail");
    }

    /// From now on no piece with this peer in it is taken.
    pub(crate) fn refuses(&self, key: &PublicKey) {
        fs::write(self.path("refused"), format!("{key}\n")).unwrap();
    }

    /// From now on calls with this verb never end.
    pub(crate) fn hangs(&self, verb: &str) {
        self.mode(verb, "hang");
    }

    /// From now on calls with this verb end well without doing anything.
    pub(crate) fn lies(&self, verb: &str) {
        self.mode(verb, "lie");
    }

    /// From now on calls with this verb print what makes no sense.
    pub(crate) fn prints_garbage(&self, verb: &str) {
        self.mode(verb, "garbage");
    }

    fn mode(&self, verb: &str, mode: &str) {
        fs::write(self.path(&format!("mode-{verb}")), mode).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
