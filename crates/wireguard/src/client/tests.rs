//! Whole files, as the customer gets them.

use hex::FromHex as _;

use super::*;

const NO_AMNEZIA: Option<&Amnezia> = None;

/// Bob of RFC 7748 buys from Alice.
fn customers_key() -> PrivateKey {
    let bob = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
    PrivateKey::from_random(<[u8; 32]>::from_hex(bob).unwrap())
}

fn rendered(key: Option<&PrivateKey>, ipv6: Ipv6, mtu: Option<u16>, amnezia: Option<&Amnezia>) -> String {
    let of_peer: Vec<IpAddr> = vec!["10.8.0.2".parse().unwrap(), "fd00:8::2".parse().unwrap()];
    let of_server: Vec<IpNet> = vec!["0.0.0.0/0".parse().unwrap()];
    let endpoint: Endpoint = "vpn.example.com:51820".parse().unwrap();
    let text = ClientFile {
        private_key: key,
        addresses: &ipv6.addresses(&of_peer),
        dns: &Dns::parse_list("1.1.1.1, 8.8.8.8").unwrap(),
        mtu,
        server_key: &"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".parse::<PublicKey>().unwrap(),
        preshared: &PresharedKey::from_random([7; 32]),
        endpoint: &endpoint,
        allowed_ips: &ipv6.allowed_ips(&of_server),
        keepalive: 25,
        amnezia,
    }
    .render();
    text.as_str().to_owned()
}

#[test]
fn ipv4_only() {
    assert_eq!(
        rendered(Some(&customers_key()), Ipv6::Off, None, NO_AMNEZIA),
        "[Interface]
PrivateKey = WKsIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Gs=
Address = 10.8.0.2/32
DNS = 1.1.1.1, 8.8.8.8

[Peer]
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
PresharedKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
AllowedIPs = 0.0.0.0/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
"
    );
}

#[test]
fn ipv6_through_the_tunnel() {
    assert_eq!(
        rendered(Some(&customers_key()), Ipv6::Routed, Some(1280), NO_AMNEZIA),
        "[Interface]
PrivateKey = WKsIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Gs=
Address = 10.8.0.2/32, fd00:8::2/128
DNS = 1.1.1.1, 8.8.8.8
MTU = 1280

[Peer]
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
PresharedKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
"
    );
}

#[test]
fn ipv6_blocked_has_an_address_that_leads_nowhere() {
    assert_eq!(
        rendered(Some(&customers_key()), Ipv6::Blocked, None, NO_AMNEZIA),
        "[Interface]
PrivateKey = WKsIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Gs=
Address = 10.8.0.2/32, fd73:656d:656c::1/128
DNS = 1.1.1.1, 8.8.8.8

[Peer]
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
PresharedKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
"
    );
}

#[test]
fn amneziawg_has_its_parameters_in_the_interface() {
    let amnezia =
        Amnezia { jc: 4, jmin: 50, jmax: 1000, s1: 15, s2: 100, h1: 5, h2: 2_147_483_647, h3: 1_000_000_007, h4: 77 };
    assert_eq!(
        rendered(Some(&customers_key()), Ipv6::Off, Some(1280), Some(&amnezia)),
        "[Interface]
PrivateKey = WKsIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Gs=
Address = 10.8.0.2/32
DNS = 1.1.1.1, 8.8.8.8
MTU = 1280
Jc = 4
Jmin = 50
Jmax = 1000
S1 = 15
S2 = 100
H1 = 5
H2 = 2147483647
H3 = 1000000007
H4 = 77

[Peer]
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
PresharedKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
AllowedIPs = 0.0.0.0/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
"
    );
}

#[test]
fn a_customer_with_an_own_key_is_told_where_it_belongs() {
    assert_eq!(
        rendered(None, Ipv6::Off, None, NO_AMNEZIA),
        "[Interface]
# PrivateKey = <yours>
Address = 10.8.0.2/32
DNS = 1.1.1.1, 8.8.8.8

[Peer]
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
PresharedKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
AllowedIPs = 0.0.0.0/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
"
    );
}

#[test]
fn what_is_not_set_has_no_line_and_no_text_begins_one() {
    let (server, preshared) = (PublicKey([1; 32]), PresharedKey::from_random([7; 32]));
    let file = ClientFile {
        private_key: None,
        addresses: &[],
        dns: &[],
        mtu: None,
        server_key: &server,
        preshared: &preshared,
        endpoint: "vpn.example.com:51820\nPostUp = reboot",
        allowed_ips: &[],
        keepalive: 0,
        amnezia: None,
    };
    assert_eq!(
        file.render().as_str(),
        "[Interface]
# PrivateKey = <yours>

[Peer]
PublicKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
PresharedKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
Endpoint = vpn.example.com:51820
"
    );
}

#[test]
fn the_file_prints_no_secret_by_accident() {
    let (key, server, preshared) = (customers_key(), PublicKey([1; 32]), PresharedKey::from_random([7; 32]));
    let file = ClientFile {
        private_key: Some(&key),
        addresses: &[],
        dns: &[],
        mtu: None,
        server_key: &server,
        preshared: &preshared,
        endpoint: "vpn.example.com:51820",
        allowed_ips: &[],
        keepalive: 0,
        amnezia: None,
    };
    let printed = format!("{file:?} {:?}", file.render());
    assert!(!printed.contains("WKsI") && !printed.contains("BwcH"), "{printed}");
}

#[test]
fn routed_ipv6_keeps_the_networks_that_the_server_names() {
    let named: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    assert_eq!(Ipv6::Routed.allowed_ips(&named), named);
    assert_eq!(Ipv6::Off.allowed_ips(&named), &named[..1]);
    let blocked: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()];
    assert_eq!(Ipv6::Blocked.allowed_ips(&named), blocked);
}

#[test]
fn ipv6_is_one_of_three_words() {
    for kind in [Ipv6::Off, Ipv6::Routed, Ipv6::Blocked] {
        assert_eq!(kind.as_str().parse::<Ipv6>(), Ok(kind));
    }
    assert_eq!("Off".parse::<Ipv6>().unwrap_err().to_string(), "\"Off\" is not one of off, routed and blocked");
}

#[test]
fn an_endpoint_is_a_host_and_a_port() {
    for right in [
        "vpn.example.com:51820",
        "localhost:1",
        "203.0.113.7:65535",
        "[2001:db8::7]:51820",
        "xn--e1afmkfd.xn--p1ai:443",
    ] {
        assert_eq!(right.parse::<Endpoint>().unwrap().to_string(), right);
    }
    for wrong in [
        "",
        "vpn.example.com",
        ":51820",
        "vpn.example.com:",
        "vpn.example.com:0",
        "vpn.example.com:65536",
        "vpn.example.com:+51",
        "vpn.example.com:51820\n",
        "vpn.example.com\n[Peer]:51820",
        "vpn example.com:51820",
        "203.0.113.300:51820",
        "2001:db8::7:51820",
        "[203.0.113.7]:51820",
        "[2001:db8::7]",
        "-vpn.example.com:51820",
        "vpn..example.com:51820",
        "пример.рф:51820",
    ] {
        assert_eq!(wrong.parse::<Endpoint>(), Err(ClientError::Endpoint(wrong.to_owned())));
    }
}

#[test]
fn dns_is_servers_and_search_domains() {
    let list = Dns::parse_list("1.1.1.1,2606:4700:4700::1111 , corp.example.com").unwrap();
    let printed: Vec<String> = list.iter().map(Dns::to_string).collect();
    assert_eq!(printed, ["1.1.1.1", "2606:4700:4700::1111", "corp.example.com"]);
    assert_eq!(list[0], Dns::Server("1.1.1.1".parse().unwrap()));
    assert!(matches!(list[2], Dns::Search(_)));
    assert_eq!(Dns::parse_list(" "), Ok(vec![]));
    for wrong in ["1.1.1", "1.1.1.300", "corp.example.com\nPostUp = reboot", "a b", "пример.рф"] {
        assert_eq!(Dns::parse_list(wrong), Err(ClientError::Dns(wrong.to_owned())));
    }
}
