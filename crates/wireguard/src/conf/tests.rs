use proptest::prelude::*;

use super::*;
use crate::peer::PeerName;
use crate::peer::testing::{key, peer, peers};

const INTERFACE: &str = "[Interface]\nAddress = 10.8.0.1/24, fd08::1/64\nListenPort = 51820\n\
    PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n\
    PostUp = iptables -A FORWARD -i %i -j ACCEPT # two = signs\nSaveConfig = false\n\n";

fn parse(text: impl AsRef<[u8]>) -> Conf {
    match Conf::parse(text.as_ref()) {
        Ok(conf) => conf,
        Err(error) => panic!("{error}\n{}", String::from_utf8_lossy(text.as_ref())),
    }
}

fn refused(text: &str) -> ConfError {
    Conf::parse(text.as_bytes()).expect_err(text)
}

fn keys(seen: &[SeenPeer]) -> Vec<PublicKey> {
    seen.iter().map(|peer| peer.public_key).collect()
}

fn section(n: u32) -> String {
    format!("[Peer]\nPublicKey = {}\nAllowedIPs = 10.9.0.{n}/32\n", key(1_000 + n))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn our_peers_are_appended_between_two_lines_and_the_rest_stays() {
    let before = format!("{INTERFACE}{}", section(1));
    let after = text(parse(&before).with_ours(&peers([2, 1])));
    let ours = after.strip_prefix(before.as_str()).unwrap();
    let mut between = String::new();
    peer(1).write_to_file(&mut between);
    peer(2).write_to_file(&mut between);
    let hash = hash(between.as_bytes());
    assert_eq!(ours, format!("# semel: begin {HINT}\n{between}# semel: end sha256={hash}\n"));

    let conf = parse(&after);
    assert!(conf.whole() && conf.has_fence());
    assert_eq!(keys(&conf.ours()), [key(1), key(2)]);
    assert_eq!(keys(&conf.foreign()), [key(1_001)]);
    assert!(peer(1).is_shown_by(&conf.ours()[0]));
    assert_eq!(conf.ours()[0].name, Some(PeerName::clean("peer 1")));
}

#[test]
fn the_last_peer_of_ours_goes_and_the_fence_stays_where_it_is() {
    let first = text(parse(INTERFACE).with_ours(&peers([1]))) + &section(1);
    let emptied = text(parse(&first).with_ours(&[]));
    assert!(emptied.starts_with(INTERFACE) && emptied.ends_with(&section(1)));
    assert!(parse(&emptied).whole() && parse(&emptied).ours().is_empty());
    assert_eq!(text(parse(&emptied).with_ours(&peers([1]))), first);
}

#[test]
fn nothing_to_write_writes_nothing() {
    for file in ["", INTERFACE, "# only this", "\u{feff}"] {
        assert_eq!(text(parse(file).with_ours(&[])), file);
        assert!(parse(file).whole());
    }
}

#[test]
fn the_interface_is_read_as_wg_quick_reads_it() {
    let conf = parse(INTERFACE);
    let interface = conf.interface();
    assert!(interface.present && interface.has_private_key && !interface.save_config);
    assert_eq!(interface.listen_port, Some(51820));
    let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.8.0.1/24", "fd08::1/64"]);

    let odd = parse(
        "\u{feff}[INTERFACE] # mine\r\n  address=10.8.0.1 fd08::1/64,host\r\nDNS = 1.1.1.1\r\nSAVECONFIG = True\r\nJc = 4",
    );
    assert_eq!(odd.interface().addresses.len(), 2);
    assert!(odd.interface().save_config && !odd.interface().has_private_key);
}

#[test]
fn a_peer_is_read_however_it_is_written() {
    let key_text = key(7).to_string();
    let (left, right) = key_text.split_at(20);
    let file = format!(
        "  [ pEEr ]# Client\r\n  publickey={left} {right}\r\nALLOWEDIPS = 10.9.0.2/24 , fd09::2\r\nAllowedIPs=+10.10.0.1\n\
         PresharedKey = {}\nEndpoint = vpn.example.org:51820\nPersistentKeepalive = off\nAdvancedSecurity = on\n",
        crate::peer::NO_PRESHARED
    );
    let seen = &parse(&file).foreign()[0];
    assert_eq!(seen.public_key, key(7));
    assert!(seen.preshared.is_none());
    let allowed: Vec<String> = seen.allowed.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.9.0.0/24", "10.10.0.1/32", "fd09::2/128"]);
    assert_eq!(seen.endpoint.as_deref(), Some("vpn.example.org:51820"));
}

#[test]
fn a_comment_names_the_peer_that_it_belongs_to() {
    let (one, two, three, four) = (key(1), key(2), key(3), key(4));
    let file = format!(
        "# a file\n\n# Client: Ivan (7)\n[Peer]\nPublicKey = {one}\n# Client: Olga\n[Peer]\nPublicKey = {two}\n\n\
         [Peer]\n# friendly_name=phone\n# bought in May\nPublicKey = {three}\n\n[Peer]\nPublicKey = {four}\n"
    );
    let seen = parse(&file).foreign();
    let names: Vec<Option<&str>> = seen.iter().map(|seen| seen.name.as_ref().map(PeerName::as_str)).collect();
    assert_eq!(names, [Some("Client: Ivan (7)"), Some("Client: Olga"), Some("phone"), None]);
}

#[test]
fn a_peer_of_ours_that_somebody_moved_out_is_not_written_twice() {
    let moved = format!("{INTERFACE}[Peer]\nPublicKey = {}\nAllowedIPs = 10.8.0.1/32\n", key(1));
    let conf = parse(&moved);
    let after = text(conf.with_ours(&peers([1, 2])));
    assert_eq!(after.matches(&key(1).to_string()).count(), 1);
    assert_eq!(keys(&parse(&after).ours()), [key(2)]);
    assert!(conf.outside().contains(&key(1)));
    // Nothing is left to write: not even a fence.
    assert_eq!(text(conf.with_ours(&peers([1]))), moved);

    // Copied out: the copy stays, ours goes.
    let copied = text(parse(INTERFACE).with_ours(&peers([1, 2]))) + &moved[INTERFACE.len()..];
    let after = text(parse(&copied).with_ours(&peers([1, 2])));
    assert_eq!(after.matches(&key(1).to_string()).count(), 1);
    assert!(after.ends_with(&moved[INTERFACE.len()..]));
    assert_eq!(parse(&after).seen().peers.len(), 2);
}

#[test]
fn a_peer_that_somebody_put_between_our_lines_is_moved_below_them() {
    let fenced = text(parse(INTERFACE).with_ours(&peers([1, 2])));
    let stray = format!("# my router\n{}", section(3));
    let at = fenced.find("[Peer]").unwrap();
    let planted = format!("{}{stray}{}{}", &fenced[..at], &fenced[at..], section(4));
    let conf = parse(&planted);
    assert!(!conf.whole());
    let known = (1..=9).map(key).collect();
    let after = text(conf.reconciled(&peers([2]), &known));
    assert!(after.starts_with(INTERFACE) && after.ends_with(&format!("{stray}{}", section(4))), "{after}");
    let conf = parse(&after);
    assert!(conf.whole());
    assert_eq!(keys(&conf.ours()), [key(2)]);
    assert_eq!(keys(&conf.foreign()), [key(1_003), key(1_004)]);
    assert_eq!(text(conf.reconciled(&peers([2]), &known)), after);
}

#[test]
fn a_damaged_fence_is_refused_with_what_to_do() {
    let begin = "# semel: begin x\n";
    let end = "# semel: end sha256=00\n";
    let peer = section(1);
    for (file, line, problem) in [
        (format!("{begin}{peer}"), 1, Problem::NeverEnds),
        (format!("{peer}{end}"), 4, Problem::NeverBegan),
        (format!("{begin}{peer}{end}{peer}{end}"), 9, Problem::NeverBegan),
        (format!("{begin}{peer}{begin}{end}"), 5, Problem::SecondFence { first: 1 }),
        (format!("{begin}{end}{begin}{end}"), 3, Problem::SecondFence { first: 1 }),
        (format!("{begin}[Interface]\n{end}"), 2, Problem::SectionInside),
        (format!("{peer}{begin}{end}PersistentKeepalive = 25\n"), 6, Problem::SettingBelowFence),
    ] {
        assert_eq!(refused(&file), ConfError { line, problem }, "{file}");
    }
    assert!(refused(begin).to_string().starts_with("line 1: `# semel: begin` has no `# semel: end`; write"));
}

#[test]
fn a_fence_that_was_only_touched_is_not_whole_and_is_written_anew() {
    let fenced = text(parse(INTERFACE).with_ours(&peers([1, 2])));
    for touched in [
        fenced.replace("10.8.0.1/32", "10.8.0.9/32"),
        fenced.replace('\n', "\r\n"),
        fenced.replace("# semel: end sha256=", "#semel: end "),
        fenced.trim_end().trim_end_matches(|last: char| last.is_ascii_hexdigit()).to_owned(),
    ] {
        let conf = parse(&touched);
        assert!(!conf.whole(), "{touched}");
        let after = conf.with_ours(&peers([1, 2]));
        assert!(parse(&after).whole());
        assert_eq!(text(after).matches("semel: begin").count(), 1);
    }
}

#[test]
fn a_file_that_wg_would_refuse_is_refused_with_the_line_and_no_secret() {
    let key = key(1);
    for (file, line, problem) in [
        ("Address = 10.0.0.1/24\n".to_owned(), 1, Problem::NoSection),
        ("[Interface]\n\nnonsense\n".to_owned(), 3, Problem::NoSetting),
        ("[Peer]\nPublicKey = short\n".to_owned(), 2, Problem::PublicKey),
        (format!("[Peer]\nPublicKey = {key}\nPresharedKey = secret\n"), 3, Problem::PresharedKey),
        (format!("[Peer]\nPublicKey = {key}\nAllowedIPs = 10.0.0.1/32,,\n"), 3, Problem::AllowedIps),
        ("# x\n[Peer]\nAllowedIPs = 10.0.0.1\n[Peer]\n".to_owned(), 2, Problem::NoPublicKey),
        ("[Peer]".to_owned(), 1, Problem::NoPublicKey),
    ] {
        assert_eq!(refused(&file), ConfError { line, problem }, "{file}");
    }
    let told = format!("{:?} {}", parse(INTERFACE), refused("[Peer]\nPresharedKey = secret\n"));
    assert!(!told.contains("yAnz5TF") && !told.contains("secret"), "{told}");
}

#[test]
fn ten_thousand_peers_and_a_thousand_more_are_written_at_once() {
    let first = parse(INTERFACE).with_ours(&peers(0..10_000));
    let started = tokio::time::Instant::now();
    let conf = parse(&first);
    let second = conf.with_ours(&peers(0..11_000));
    let took = started.elapsed();
    assert_eq!(parse(&second).ours().len(), 11_000);
    // Not optimised and on a busy machine; what grows with the square takes minutes.
    assert!(took.as_secs() < 10, "{took:?}");
}

/// A piece of a file as people and tools write them.
fn piece() -> impl Strategy<Value = String> {
    let pieces = vec![
        INTERFACE.to_owned(),
        section(1),
        format!("# Клиент: Иван\n{}\n", section(2)),
        "[Weird]\nanything at all\n= ; 7\n".to_owned(),
        "\n\n".to_owned(),
        "  \t# a comment with [Peer] and = in it\n".to_owned(),
        "# semel: beginning, not ours\n".to_owned(),
        section(3)
            .replace(" = ", "=")
            .to_lowercase()
            .replace(&key(1_003).to_string().to_lowercase(), &key(1_003).to_string()),
        format!("[Peer] # \u{0}\u{7f}\n\u{b}PublicKey\t=\t{}\n", key(1_004)),
    ];
    (prop::sample::select(pieces), any::<bool>())
        .prop_map(|(piece, windows)| if windows { piece.replace('\n', "\r\n") } else { piece })
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), prop::collection::vec(piece(), 0..8), any::<bool>(), any::<Option<u8>>()).prop_map(
        |(marked, pieces, whole, odd)| {
            let mut bytes = if marked { BOM.to_vec() } else { Vec::new() };
            bytes.extend_from_slice(pieces.concat().as_bytes());
            if let Some(odd) = odd.filter(|odd| *odd != b'\n') {
                bytes.extend_from_slice(&[b'#', odd, b'\n']);
            }
            if !whole && bytes.ends_with(b"\n") {
                bytes.pop();
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn every_byte_outside_of_the_fence_stays(
        before in file(),
        after in prop::collection::vec(piece(), 0..4),
        first in prop::collection::btree_set(0_u32..30, 1..8),
        second in prop::collection::btree_set(0_u32..30, 0..8),
    ) {
        let after = after.concat().into_bytes();
        let mut start = parse(&before).with_ours(&peers(first.iter().copied()));
        prop_assert!(start.starts_with(&before));
        start.extend_from_slice(&after);

        let conf = parse(&start);
        prop_assert!(conf.whole());
        prop_assert_eq!(keys(&conf.ours()), first.iter().copied().map(key).collect::<Vec<_>>());

        let mut wanted = peers(second.iter().copied());
        wanted.reverse();
        let end = conf.with_ours(&wanted);
        prop_assert!(end.starts_with(&before) && end.ends_with(&after));
        let middle = std::str::from_utf8(&end[before.len()..end.len() - after.len()]).unwrap();
        prop_assert!(middle.trim_start_matches('\n').starts_with("# semel: begin"));
        prop_assert_eq!(middle.lines().next_back().map(|line| line.starts_with("# semel: end sha256=")), Some(true));

        let again = parse(&end);
        prop_assert!(again.whole());
        prop_assert_eq!(keys(&again.ours()), second.iter().copied().map(key).collect::<Vec<_>>());
        prop_assert_eq!(keys(&again.foreign()), keys(&conf.foreign()));
        prop_assert_eq!(again.with_ours(&peers(second.iter().copied())), end);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
        if let Ok(conf) = Conf::parse(&bytes) {
            prop_assert!(Conf::parse(&conf.with_ours(&peers([1]))).is_ok());
        }
    }

    #[test]
    fn whatever_is_accepted_stays_acceptable(
        words in prop::collection::vec(prop::sample::select(vec![
            "[Peer]", "[Interface]", "[x]", "#", "# semel: begin", "# semel: end", "sha256=", "PublicKey", "AllowedIPs", "=",
            "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "10.0.0.1/32", ",", "-", "+", "\n", "\n", "\r\n", " ", "\u{feff}", "\0",
        ]), 0..40),
    ) {
        if let Ok(conf) = Conf::parse(words.concat().as_bytes()) {
            let after = conf.with_ours(&peers([1, 2]));
            let again = Conf::parse(&after);
            prop_assert!(again.is_ok(), "{:?}: {}", again, String::from_utf8_lossy(&after));
            let again = again.unwrap();
            prop_assert!(again.whole());
            prop_assert_eq!(keys(&again.foreign()), keys(&conf.foreign()));
            prop_assert_eq!(again.with_ours(&peers([2, 1])), after);
            let moved = conf.reconciled(&peers([1, 2]), &BTreeSet::new());
            prop_assert!(Conf::parse(&moved).is_ok_and(|moved| moved.whole()));
            prop_assert_eq!(Conf::parse(&moved).unwrap().reconciled(&peers([1, 2]), &BTreeSet::new()), moved);
        }
    }

    #[test]
    fn no_name_adds_a_peer_or_ends_the_fence(name in any::<String>()) {
        let mut named = peer(1);
        named.comment = PeerName::clean(&name);
        let after = parse(INTERFACE).with_ours(&[named.clone(), peer(2)]);
        let conf = parse(&after);
        prop_assert!(conf.whole());
        prop_assert_eq!(keys(&conf.ours()), [key(1), key(2)]);
        prop_assert!(conf.foreign().is_empty());
        prop_assert_eq!(conf.ours()[0].name.clone().unwrap_or_default(), named.comment);
    }
}

#[test]
fn an_interface_covers_the_networks_of_its_own_addresses_alone() {
    let conf = Conf::parse(b"[Interface]\nAddress = 10.8.0.1/24, fd00:8::1/112\nAddress = 10.9.0.1\n").unwrap();
    let covers = |network: &str| conf.interface().covers(&network.parse().unwrap());
    assert!(covers("10.8.0.0/24") && covers("10.8.0.128/25") && covers("fd00:8::/120"));
    assert!(!covers("10.9.0.0/24"), "an address without its network reaches nobody");
    assert!(!covers("10.8.0.0/16") && !covers("fd00:9::/112"));
    let lines = super::lines_for(&"10.9.0.0/24".parse().unwrap());
    assert_eq!(lines[0], "Address = 10.9.0.1/24");
    assert_eq!(lines[1], "PostUp = iptables -t nat -A POSTROUTING -s 10.9.0.0/24 -o OUTSIDE -j MASQUERADE");
    assert!(super::lines_for(&"fd00:9::/112".parse().unwrap())[2].starts_with("PostDown = ip6tables -t nat -D "));
}
