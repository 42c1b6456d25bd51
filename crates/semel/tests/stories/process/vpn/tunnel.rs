//! It really connects: the customer's file and the picture of it bring up a tunnel, who is revoked is out within seconds,
//! and nobody else notices.
//!
//! Semel itself runs beside the server's namespace, not in it: it changes the interface by `wg`, which reaches a device of
//! userspace WireGuard through its socket in the file system. So the outside world of the other stories is there as always.

use std::io::Cursor;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use semel_kernel::store::Engine;

use super::net::{self, Net, SERVER};
use super::wanted;
use crate::process::program::{Killed, Patience, Program, World, items, text, write_private};

/// A revoked peer is out within this, on a busy machine.
const OUT: Duration = Duration::from_secs(10);
/// Of the server, inside of the tunnel.
const INSIDE: &str = "10.66.0.1";
const INSIDE6: &str = "fd66:66::1";
const NETWORK: &str = "10.66.0.0/24";
const NETWORK6: &str = "fd66:66::/120";
const ONE: i64 = 42;
const OTHER: i64 = 43;

/// A server that sells access, with its interface up.
struct Server {
    world: World,
    net: Net,
    has_six: bool,
}

impl Server {
    /// As the README says it: `semel wg init`, then the interface, then `semel serve`.
    async fn up() -> (Server, Program) {
        net::needed();
        let mut world =
            World::with(Engine::Sqlite, &[("SEMEL_VPN_HOST", SERVER), ("SEMEL_VPN_NETWORK", NETWORK)]).await;
        let folder = world.private_folder("wg");
        let mut net = Net::new(&folder, 2);
        let interface = net.device("w");
        let file = folder.join(format!("{interface}.conf"));
        world.set("SEMEL_VPN_INTERFACE", interface.as_str());
        world.set("SEMEL_VPN_CONFIG_PATH", file.to_string_lossy());
        world.set("SEMEL_VPN_TRAFFIC_EVERY", "1h");
        let has_six = net.speaks_ipv6();
        if has_six {
            world.set("SEMEL_VPN_NETWORK6", NETWORK6);
        }
        let told = world.cli(&["wg", "init", "--out-interface", "lo"]).await.good();
        assert!(told.contains("is written, with a key of its own"), "{told}");
        let space = net.server().to_owned();
        net.up(&space, &interface, &file, &[]).await;
        let healthy = world.cli(&["doctor"]).await.out;
        // The story's own internet forwards nothing over this machine.
        let bad = |line: &str| line.starts_with("BAD ") && !line.contains("forwards no IPv4");
        assert!(!healthy.lines().any(bad), "{healthy}");
        assert!(healthy.contains(&format!("wg shows the interface {interface} with 0 peers")), "{healthy}");
        let program = world.start().await;
        (Server { world, net, has_six }, program)
    }

    /// A customer buys access; answers the subscription.
    async fn sells_to(&self, program: &mut Program, product: &str, customer: i64) -> String {
        let order = program.order(product, customer).await;
        self.world.acknowledged(self.world.pay(&order)).await;
        program.delivered(&order).await;
        let patience = Patience::of("the picture is in the chat", 60);
        while self.world.sandbox.chat(customer).iter().all(|message| message.photo.is_none()) {
            patience.wait().await;
        }
        let listed = program.door.get(&format!("/api/v1/subscriptions?customer={customer}")).await;
        text(&items(&listed)[0]["id"])
    }

    /// The file in a customer's chat: its name and its text.
    fn file(&self, customer: i64) -> (String, String) {
        let chat = self.world.sandbox.chat(customer);
        let file = chat.iter().find_map(|message| message.document.as_ref()).expect("a file in the chat");
        (file.name.clone(), String::from_utf8(file.bytes.to_vec()).expect("the file is text"))
    }

    /// What a phone reads in the picture in a customer's chat.
    fn picture(&self, customer: i64) -> String {
        let chat = self.world.sandbox.chat(customer);
        let photo = chat.iter().find_map(|message| message.photo.as_ref()).expect("a picture in the chat");
        let mut decoder = png::Decoder::new(Cursor::new(&photo.bytes[..]));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a picture of bounded size")];
        let frame = reader.next_frame(&mut pixels).expect("a whole PNG");
        assert_eq!((frame.color_type, frame.bit_depth), (png::ColorType::Grayscale, png::BitDepth::Eight));
        let (width, height) = (frame.width as usize, frame.height as usize);
        let mut seen = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * width + x]);
        let texts: Vec<String> =
            seen.detect_grids().into_iter().filter_map(|grid| grid.decode().ok()).map(|(_, text)| text).collect();
        assert_eq!(texts.len(), 1, "one code is in the picture");
        texts.into_iter().next().unwrap_or_default()
    }

    /// A customer's device imports `text` under the name that the file has.
    async fn imports(&mut self, member: usize, name: &str, text: &str) {
        let folder = self.world.private_folder(&format!("device-{member}"));
        let file: PathBuf = folder.join(name);
        write_private(&file, text);
        let (space, device) = (self.net.customer(member).to_owned(), self.net.device(&format!("d{member}")));
        let routes: &[&str] = if self.has_six { &[NETWORK, NETWORK6] } else { &[NETWORK] };
        self.net.up(&space, &device, &file, routes).await;
    }

    /// Everything inside answers.
    async fn is_connected(&self, member: usize) {
        let space = self.net.customer(member);
        self.net.reaches(space, INSIDE).await;
        if self.has_six {
            self.net.reaches(space, INSIDE6).await;
        }
    }

    fn peers_on_interface(&self) -> usize {
        let listed = net::done(&["wg", "show", &self.net.device("w"), "peers"]);
        listed.lines().count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_and_its_picture_connect_and_who_is_revoked_is_out_while_nobody_else_notices() {
    let (mut server, mut program) = Server::up().await;
    let product = program.access(30, 1).await;
    let first = server.sells_to(&mut program, &product, ONE).await;
    let second = server.sells_to(&mut program, &product, OTHER).await;
    assert_ne!(first, second);

    // One customer takes the file, the other one the picture.
    let (name, file) = server.file(ONE);
    server.imports(1, &name, &file).await;
    server.is_connected(1).await;
    let (name, file) = server.file(OTHER);
    let scanned = server.picture(OTHER);
    assert_eq!(scanned, file, "the picture holds the file");
    server.imports(2, &name, &scanned).await;
    server.is_connected(2).await;

    let stream = server.net.stream(server.net.customer(2), INSIDE);
    let patience = Patience::of("packets go through the tunnel", 30);
    while stream.answered() < 10 {
        patience.wait().await;
    }

    // Revoked: out within seconds, and for good.
    let asked = Instant::now();
    program.revoke(&first).await;
    let patience = Patience::of("the revoked customer is out", 60);
    while server.net.answers(server.net.customer(1), INSIDE) {
        patience.wait().await;
    }
    assert!(asked.elapsed() < OUT, "the revoked customer was out after {:?}", asked.elapsed());
    program.vpn_settles(30).await;
    for _ in 0..3 {
        assert!(!server.net.answers(server.net.customer(1), INSIDE), "the revoked customer is back");
    }

    // A hundred peers come and go, and the program itself starts anew.
    for round in 0..10 {
        let crowd = program.grant(1_000 + round, 10).await;
        program.vpn_settles(30).await;
        assert_eq!(server.peers_on_interface(), 11, "ten more on the interface");
        program.revoke(&crowd).await;
        program.vpn_settles(30).await;
        assert_eq!(server.peers_on_interface(), 1, "only the customer who stays");
    }
    assert_eq!(wanted(&program).await.len(), 1);
    program.at_rest().await;
    program.terminate().await;
    let program = server.world.start().await;
    program.vpn_settles(30).await;
    stream.end(50).await;
    server.is_connected(2).await;

    // What the interface counted is read at a start.
    let patience = Patience::of("the first handshake is noted", 30);
    loop {
        let shown = program.door.get(&format!("/api/v1/subscriptions/{second}")).await;
        let peer = &shown.body["peers"][0];
        let is_known = !peer["first_handshake_at"].is_null() && !peer["last_handshake_at"].is_null();
        if is_known && peer["received"].as_i64() > Some(0) && peer["sent"].as_i64() > Some(0) {
            break;
        }
        patience.wait().await;
    }
    let Server { world, net, .. } = server;
    world.finish(program, Killed::BesideTelegram).await;
    drop(net);
}
