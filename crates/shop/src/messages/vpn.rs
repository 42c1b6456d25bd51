//! The three messages that hand VPN access over: the file, the same as a picture, and how to use both.
//!
//! Keys are opened at the moment when a message is sent, for its bytes alone: neither a row nor a log has seen them. A peer
//! that is not wanted on its server any more is handed to nobody, whatever was queued before.

use semel_kernel::clock::Time;
use semel_telegram::{Button, File, ParseMode, SendDocument, SendPhoto};

use super::send::{Outgoing, plain};
use super::vpn_text::{self, Device};
use super::{Body, Language, Message, OfPeer, VPN_FILE, VPN_HOWTO, VPN_QR};
use crate::vpn::files::{self, ClientText};
use crate::vpn::{Form, PeerState, peers, servers};
use crate::{Error, Shop, notices, subscriptions};

/// What became of putting a message together.
pub(super) enum Rendered {
    /// It can go; `own` when the words in it are the owner's.
    Whole { outgoing: Outgoing, own: bool },
    /// The device has no access any more, so neither this message nor the next of its chain has a meaning.
    Closed,
    /// This one has nothing to say for such a file, and the next one has; why.
    Needless(&'static str),
}

/// Puts a message about a device together, as things are now. `several`: whether those of several devices come together, and
/// the how-to is for all of them. `ours`: in our words, whatever the owner's are.
///
/// # Errors
/// What the store says, and what keeps the keys from being opened: nothing was sent, and both may pass.
pub(super) async fn render(
    shop: &Shop,
    message: &Message,
    of: &OfPeer,
    several: bool,
    ours: bool,
) -> Result<Rendered, Error> {
    let Some(mut access) = read(shop, of, kind_of(&message.body)).await? else { return Ok(Rendered::Closed) };
    access.several = several;
    access.own = access.own.filter(|_| !ours);
    let support = shop.vpn.as_ref().and_then(|vpn| vpn.rules.support.as_deref());
    Ok(put_together(message, of, &access, support))
}

/// A device's access. Prints nowhere: it holds keys.
struct Access {
    file: ClientText,
    /// The end of the subscription's time.
    until: Time,
    /// Whether the file is for AmneziaWG: its server speaks nothing else.
    amnezia: bool,
    /// Whether the files of several devices come together.
    several: bool,
    /// The owner's words for this message; none where ours count.
    own: Option<String>,
}

/// The kind of the words in a message about a device.
fn kind_of(body: &Body) -> &'static str {
    match body {
        Body::VpnFile(_) => VPN_FILE,
        Body::VpnQr(_) => VPN_QR,
        _ => VPN_HOWTO,
    }
}

async fn read(shop: &Shop, of: &OfPeer, kind: &'static str) -> Result<Option<Access>, Error> {
    let (context, peer, language) = (shop.clone(), of.peer.clone(), of.language);
    let reading = shop.read("message.vpn", move |tx| {
        let found = match peers::find(tx, &peer) {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if !matches!(found.state, PeerState::Pending | PeerState::Active) {
            return Ok(None);
        }
        let amnezia = servers::find(tx, &found.server)?.amnezia.is_some();
        let form = if amnezia { Form::AmneziaWg } else { Form::WireGuard };
        let file = files::client_file(tx, &context, &peer, form)?;
        let until = subscriptions::flows::find(tx, &found.subscription)?.paid_until;
        let own = notices::flows::own(tx, kind, language)?;
        Ok(Some(Access { file, until, amnezia, several: false, own }))
    });
    reading.await
}

fn put_together(message: &Message, of: &OfPeer, access: &Access, support: Option<&str>) -> Rendered {
    let file = &access.file;
    let device = Device {
        number: of.device,
        tunnel: &file.name,
        until: access.until,
        amnezia: access.amnezia,
        own_key: file.own_key,
        several: access.several,
        order: of.order.as_ref(),
    };
    let whole = |outgoing| Rendered::Whole { outgoing, own: access.own.is_some() };
    match &message.body {
        Body::VpnFile(_) => whole(Outgoing::File(SendDocument {
            chat_id: message.chat_id,
            file: File::Bytes {
                name: file.file_name(),
                // Nothing may look into it or change it: apps go by the name.
                mime: "application/octet-stream".into(),
                bytes: file.text.as_bytes().to_vec(),
            },
            caption: Some(words(access, of, &device, vpn_text::file)),
            parse_mode: Some(ParseMode::Html),
            buttons: Vec::new(),
            // A protected file cannot be opened in another app.
            protect: false,
        })),
        Body::VpnQr(_) if file.own_key => Rendered::Needless("the file lacks the customer's own key: nothing to scan"),
        Body::VpnQr(_) => match files::qr(file) {
            Ok(bytes) => whole(Outgoing::Photo(SendPhoto {
                chat_id: message.chat_id,
                photo: File::Bytes { name: format!("{}.png", file.name), mime: "image/png".into(), bytes },
                caption: Some(words(access, of, &device, vpn_text::qr)),
                parse_mode: Some(ParseMode::Html),
                buttons: Vec::new(),
                protect: false,
            })),
            Err(_) => Rendered::Needless("the file is too long for a QR picture"),
        },
        // The last one of the chain; no other message comes here.
        _ => whole(howto(message, of, words(access, of, &device, vpn_text::howto), support)),
    }
}

/// The owner's words, or ours.
fn words(access: &Access, of: &OfPeer, device: &Device<'_>, ours: fn(Language, &Device<'_>) -> String) -> String {
    match &access.own {
        Some(own) => vpn_text::own(own, of.language, device),
        None => ours(of.language, device),
    }
}

fn howto(message: &Message, of: &OfPeer, html: String, support: Option<&str>) -> Outgoing {
    let mut outgoing = plain(message, html);
    if let (Outgoing::Text(text), Some(address)) = (&mut outgoing, support) {
        text.buttons = vec![vec![Button::url(vpn_text::help(of.language), address)]];
    }
    outgoing
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::Chance;

    use super::super::{Class, MessageId, State};
    use super::*;
    use crate::orders::OrderId;
    use crate::vpn::PeerId;

    const AT: Time = Time::from_millis(1_700_000_000_000);
    const TEXT: &str = "[Interface]\nPrivateKey = secret-key\nAddress = 10.8.0.2/32\n";

    fn access(text: &str, own_key: bool) -> Access {
        let file = ClientText { name: "shop-42-2".into(), text: text.to_owned().into(), own_key };
        Access { file, until: AT, amnezia: false, several: false, own: None }
    }

    fn of() -> OfPeer {
        let chance = Chance::seeded(4);
        let order = Some(OrderId::new(AT, &chance));
        OfPeer { peer: PeerId::new(AT, &chance), device: 2, language: Language::English, order }
    }

    fn message(body: Body) -> Message {
        Message {
            id: MessageId::new(AT, &Chance::seeded(1)),
            chat_id: 42,
            class: Class::AtLeastOnce,
            kind: "vpn".into(),
            body,
            state: State::Queued,
            uncertain: 0,
            queued_at: AT,
            place: 0,
        }
    }

    fn whole(body: Body, access: &Access, support: Option<&str>) -> Outgoing {
        match put_together(&message(body), &of(), access, support) {
            Rendered::Whole { outgoing, .. } => outgoing,
            Rendered::Closed => panic!("closed"),
            Rendered::Needless(why) => panic!("needless: {why}"),
        }
    }

    #[test]
    fn the_file_goes_byte_for_byte_under_the_name_of_its_tunnel() {
        let Outgoing::File(document) = whole(Body::VpnFile(of()), &access(TEXT, false), None) else {
            panic!("no file")
        };
        let File::Bytes { name, bytes, .. } = document.file else { panic!("no bytes") };
        assert_eq!((name.as_str(), bytes.as_slice()), ("shop-42-2.conf", TEXT.as_bytes()));
        let caption = document.caption.expect("a caption");
        assert!(caption.contains("Device 2") && caption.contains("14 November 2023, 22:13 UTC"), "{caption}");
        assert!(caption.contains(of().order.expect("an order").as_str()), "a double shows that it is one: {caption}");
        assert!(!caption.contains("secret-key"), "{caption}");
        assert_eq!((document.chat_id, document.protect), (42, false), "Telegram lets nobody open a protected file");
    }

    #[test]
    fn the_owners_words_stand_under_the_file() {
        let access = Access { own: Some("Yours, device {device}: {until}".into()), ..access(TEXT, false) };
        let Outgoing::File(document) = whole(Body::VpnFile(of()), &access, None) else { panic!("no file") };
        assert_eq!(document.caption.as_deref(), Some("Yours, device 2: 14 November 2023, 22:13 UTC"));
        let Outgoing::Text(text) = whole(Body::VpnHowto(of()), &access, Some("https://t.me/help")) else {
            panic!("no text")
        };
        assert!(text.text.starts_with("Yours") && text.buttons.len() == 1, "the help button stays: {}", text.text);
    }

    #[test]
    fn the_picture_is_a_png_and_its_words_hold_no_key() {
        let Outgoing::Photo(photo) = whole(Body::VpnQr(of()), &access(TEXT, false), None) else { panic!("no photo") };
        let File::Bytes { name, mime, bytes } = photo.photo else { panic!("no bytes") };
        assert_eq!((name.as_str(), mime.as_str()), ("shop-42-2.png", "image/png"));
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
        let caption = photo.caption.expect("a caption");
        assert!(caption.contains("shop-42-2") && !caption.contains("secret-key"), "{caption}");
    }

    #[test]
    fn what_cannot_be_scanned_is_passed_over() {
        let own = put_together(&message(Body::VpnQr(of())), &of(), &access(TEXT, true), None);
        assert!(matches!(own, Rendered::Needless(_)));
        let long = put_together(&message(Body::VpnQr(of())), &of(), &access(&"x".repeat(5_000), false), None);
        assert!(matches!(long, Rendered::Needless(_)));
        assert!(matches!(whole(Body::VpnFile(of()), &access(TEXT, true), None), Outgoing::File(_)), "the file goes");
    }

    #[test]
    fn the_how_to_has_a_help_button_where_there_is_help() {
        let body = || Body::VpnHowto(of());
        let Outgoing::Text(text) = whole(body(), &access(TEXT, false), Some("https://t.me/shop_help")) else {
            panic!("no text")
        };
        assert_eq!(text.buttons, [[Button::url("I need help", "https://t.me/shop_help")]]);
        assert!(text.disable_preview && text.text.contains("shop-42-2") && !text.text.contains("secret-key"));
        let Outgoing::Text(text) = whole(body(), &access(TEXT, false), None) else { panic!("no text") };
        assert!(text.buttons.is_empty());
        let family = Access { several: true, ..access(TEXT, false) };
        let Outgoing::Text(text) = whole(body(), &family, None) else { panic!("no text") };
        assert!(!text.text.contains("shop-42-2"), "it is for all of them: {}", text.text);
    }
}
