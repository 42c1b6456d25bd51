//! A `wg` that keeps its peers in a file: for stories about what is told to the interface, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Keys, key_of};
use crate::process::program::{OWN_CONF, World};

/// It does what `wg` does with what Semel says to it. The program may be killed while a call runs, which then goes on, as
/// the kernel would: so each change is put in its place as a whole.
const SCRIPT: &str = r#"#!/bin/sh
here=${0%/*}
next="$here/next-$$"

forget() {
	grep -v "^$1" "$here/peers" > "$next"
	mv "$next" "$here/peers"
}
remember() {
	[ -n "$key" ] || return 0
	[ "$preshared" = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" ] && preshared=
	grep -v "^$key" "$here/peers" > "$next"
	printf '%s\t%s\t(none)\t%s\t0\t0\t0\toff\n' "$key" "${preshared:-(none)}" "${allowed:-(none)}" >> "$next"
	mv "$next" "$here/peers"
}

case "$1" in
show)
	printf '(none)\t%s\t51820\toff\n' "$(cat "$here/public")"
	cat "$here/peers" ;;
addconf)
	cat "$3" > "$next-piece"
	key= preshared= allowed=
	while read -r name equals value; do
		case "$name" in
		"[Peer]") remember; key= preshared= allowed= ;;
		PublicKey) key=$value ;;
		PresharedKey) preshared=$value ;;
		AllowedIPs) allowed=$(echo "$value" | tr -d ' ') ;;
		esac
	done < "$next-piece"
	rm "$next-piece"
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

/// The interface behind the fake `wg`.
pub struct Interface {
    folder: PathBuf,
}

impl Interface {
    /// Gives `world`, which sells VPN access, an interface.
    pub fn of(world: &mut World) -> Interface {
        let folder = world.private_folder("interface");
        let (script, program) = (folder.join("script"), folder.join("wg"));
        fs::write(&script, SCRIPT).expect("a script");
        fs::write(folder.join("peers"), "").expect("an interface without peers");
        fs::write(folder.join("public"), key_of(OWN_CONF).to_string()).expect("the server's key");
        // Another program writes the one that is run: a file that a child of a neighbouring story still holds open for
        // writing cannot be run.
        let copied = Command::new("cp").arg(&script).arg(&program).status();
        let made = Command::new("chmod").arg("700").arg(&program).status();
        assert!([copied, made].into_iter().all(|done| done.is_ok_and(|status| status.success())), "a fake wg is made");
        world.set("SEMEL_VPN_TOOL", program.to_string_lossy());
        world.set("SEMEL_VPN_APPLY", "interface");
        Interface { folder }
    }

    /// The peers that it has.
    pub fn peers(&self) -> Keys {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        let peer = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            let addresses =
                fields[3].split(',').map(|network| network.split('/').next().unwrap_or_default().to_owned());
            (fields[0].to_owned(), addresses.collect::<BTreeSet<String>>())
        };
        text.lines().map(peer).collect::<BTreeMap<_, _>>()
    }

    /// Somebody takes all peers away.
    pub fn empty(&self) {
        fs::write(self.path(), "").expect("the interface can be emptied");
    }

    fn path(&self) -> PathBuf {
        self.folder.join("peers")
    }
}
