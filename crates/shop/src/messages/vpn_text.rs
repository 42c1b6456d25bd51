//! Every text about VPN access, in Russian and in English. None holds a key or an address.
//!
//! Moments are told in UTC, with the hour: nobody knows where the customer is, and a bare date would be wrong for some.

use semel_kernel::clock::Time;
use semel_telegram::html_escape;

use super::Language::{self, English, Russian};
use crate::notices;
use crate::orders::OrderId;
use crate::subscriptions::{Left, SubscriptionNotice};

/// What the messages about one device name. Whether the file is for WireGuard or AmneziaWG, and what is missing in it, decides
/// what its reader has to do.
#[derive(Clone, Debug)]
pub(super) struct Device<'a> {
    /// Which of the subscription's devices, counted from one.
    pub(super) number: i64,
    /// What the tunnel will be called on the device.
    pub(super) tunnel: &'a str,
    /// The end of the subscription's time.
    pub(super) until: Time,
    /// Whether the file is one for AmneziaWG, which WireGuard's own app does not read.
    pub(super) amnezia: bool,
    /// Whether the customer kept the private key, so that it is missing in the file.
    pub(super) own_key: bool,
    /// Whether the files of several devices come together: then one how-to is for all of them.
    pub(super) several: bool,
    /// The order that paid for it. Its number shows that a message that came twice is one.
    pub(super) order: Option<&'a OrderId>,
}

/// The words under the file.
pub(super) fn file(language: Language, device: &Device<'_>) -> String {
    let Device { number, tunnel, until, .. } = device;
    let (until, tunnel) = (moment(language, *until), html_escape(tunnel));
    let mut text = match language {
        Russian => format!(
            "<b>Доступ к VPN</b>\nУстройство {number}: <code>{tunnel}</code>\nОплачено до <b>{until}</b>\n\
             Этот файл — для одного устройства. Не передавайте его никому: он и есть доступ."
        ),
        English => format!(
            "<b>VPN access</b>\nDevice {number}: <code>{tunnel}</code>\nPaid until <b>{until}</b>\n\
             This file is for one device. Give it to nobody: it is the access itself."
        ),
    };
    if device.own_key {
        text.push('\n');
        text.push_str(own_key(language));
    }
    if let Some(order) = device.order {
        let word = match language {
            Russian => "Заказ",
            English => "Order",
        };
        text.push_str(&format!("\n{word} <code>{order}</code>"));
    }
    text
}

/// The owner's words for a message about a device, with its values.
pub(super) fn own(words: &str, language: Language, device: &Device<'_>) -> String {
    notices::fill(words, |name| match name {
        "device" => Some(device.number.to_string()),
        "tunnel" => Some(html_escape(device.tunnel)),
        "until" => Some(html_escape(&moment(language, device.until))),
        "order" => Some(device.order.map(|order| html_escape(order.as_str())).unwrap_or_default()),
        "app" => Some(app(device)),
        "own_key" => Some(if device.own_key { own_key(language).to_owned() } else { String::new() }),
        _ => None,
    })
}

/// What who kept their private key has to do with the file.
const fn own_key(language: Language) -> &'static str {
    match language {
        Russian => "Впишите в него свой PrivateKey: его знаете только вы.",
        English => "Write your own PrivateKey into it: only you know it.",
    }
}

/// The words under the QR picture.
pub(super) fn qr(language: Language, device: &Device<'_>) -> String {
    let (number, tunnel) = (device.number, html_escape(device.tunnel));
    match language {
        Russian => {
            format!("То же самое для телефона: отсканируйте в приложении.\nУстройство {number}: <code>{tunnel}</code>")
        }
        English => format!("The same for a phone: scan it in the app.\nDevice {number}: <code>{tunnel}</code>"),
    }
}

/// How to use both.
pub(super) fn howto(language: Language, device: &Device<'_>) -> String {
    if device.several {
        return howto_for_several(language, device);
    }
    let tunnel = html_escape(device.tunnel);
    let app = app(device);
    match (language, device.own_key) {
        (Russian, false) => format!(
            "<b>Как подключиться</b>\n1. Установите приложение {app}.\n\
             2. На телефоне нажмите «+» и отсканируйте QR-код; на компьютере импортируйте файл.\n\
             3. Включите туннель <code>{tunnel}</code>. Готово!"
        ),
        (Russian, true) => format!(
            "<b>Как подключиться</b>\n1. Установите приложение {app}.\n\
             2. Впишите в файл свой PrivateKey и импортируйте его.\n\
             3. Включите туннель <code>{tunnel}</code>. Готово!"
        ),
        (English, false) => format!(
            "<b>How to connect</b>\n1. Install the app {app}.\n\
             2. On a phone tap “+” and scan the QR code; on a computer import the file.\n\
             3. Switch the tunnel <code>{tunnel}</code> on. That is all!"
        ),
        (English, true) => format!(
            "<b>How to connect</b>\n1. Install the app {app}.\n\
             2. Write your PrivateKey into the file and import it.\n\
             3. Switch the tunnel <code>{tunnel}</code> on. That is all!"
        ),
    }
}

/// The same where each of several devices has its own. A device may keep its own key while others do not.
fn howto_for_several(language: Language, device: &Device<'_>) -> String {
    let app = app(device);
    match (language, device.own_key) {
        (Russian, false) => format!(
            "<b>Как подключиться</b>\n1. Установите приложение {app} на каждое устройство.\n\
             2. У каждого свой файл и своя картинка. На телефоне нажмите «+» и отсканируйте QR-код; на компьютере \
             импортируйте файл.\n3. Включите туннель. Готово!"
        ),
        (Russian, true) => format!(
            "<b>Как подключиться</b>\n1. Установите приложение {app} на каждое устройство.\n\
             2. У каждого свой файл. Где в нём нет PrivateKey, впишите свой; потом импортируйте файл.\n\
             3. Включите туннель. Готово!"
        ),
        (English, false) => format!(
            "<b>How to connect</b>\n1. Install the app {app} on each device.\n\
             2. Each has its own file and its own picture. On a phone tap “+” and scan the QR code; on a computer import \
             the file.\n3. Switch the tunnel on. That is all!"
        ),
        (English, true) => format!(
            "<b>How to connect</b>\n1. Install the app {app} on each device.\n\
             2. Each has its own file. Where it lacks the PrivateKey, write your own into it; then import the file.\n\
             3. Switch the tunnel on. That is all!"
        ),
    }
}

/// The app that reads the file, as a link.
fn app(device: &Device<'_>) -> String {
    let (app, site) = if device.amnezia {
        ("AmneziaWG", "https://docs.amnezia.org/documentation/amnezia-wg/")
    } else {
        ("WireGuard", "https://www.wireguard.com/install/")
    };
    format!("<a href=\"{site}\">{app}</a>")
}

/// What stands on the button that leads to a person.
pub(super) fn help(language: Language) -> &'static str {
    match language {
        Russian => "Нужна помощь",
        English => "I need help",
    }
}

/// How much time is left, in words.
pub(super) const fn left_of(language: Language, left: Left) -> &'static str {
    match (language, left) {
        (Russian, Left::Days3) => "через несколько дней",
        (Russian, Left::Day1) => "примерно через сутки",
        (Russian, Left::Today) => "в ближайшие часы",
        (English, Left::Days3) => "in a few days",
        (English, Left::Day1) => "in about a day",
        (English, Left::Today) => "within hours",
    }
}

/// What a customer is told about a subscription, as HTML.
pub(crate) fn subscription(language: Language, notice: &SubscriptionNotice) -> String {
    let at = |time: &Time| moment(language, *time);
    match (language, notice) {
        (Russian, SubscriptionNotice::EndsIn { until, left }) => {
            let soon = left_of(language, *left);
            format!(
                "Доступ к VPN закончится {soon}: <b>{}</b>.\nПродлите его заранее: время прибавится к оставшемуся, а файл \
                 останется прежним.",
                at(until)
            )
        }
        (English, SubscriptionNotice::EndsIn { until, left }) => {
            let soon = left_of(language, *left);
            format!(
                "Your VPN access ends {soon}: <b>{}</b>.\nRenew it before that: the time is added to what is left, and the \
                 file stays the same.",
                at(until)
            )
        }
        (Russian, SubscriptionNotice::Ended { until }) => format!(
            "Оплаченное время VPN закончилось <b>{}</b>.\nПродлите доступ сейчас, и прежний файл будет работать дальше.",
            at(until)
        ),
        (English, SubscriptionNotice::Ended { until }) => format!(
            "Your paid VPN time ended on <b>{}</b>.\nRenew it now, and the same file goes on working.",
            at(until)
        ),
        (Russian, SubscriptionNotice::Renewed { until }) => format!(
            "Спасибо! Доступ к VPN продлён до <b>{}</b>.\nНастраивать ничего не нужно: работает прежний файл.",
            at(until)
        ),
        (English, SubscriptionNotice::Renewed { until }) => format!(
            "Thank you! Your VPN access goes on until <b>{}</b>.\nThere is nothing to set up: the same file works.",
            at(until)
        ),
        (Russian, SubscriptionNotice::Granted { until }) => {
            format!("Вам открыт доступ к VPN до <b>{}</b>.\nФайл для подключения придёт сюда сам.", at(until))
        }
        (English, SubscriptionNotice::Granted { until }) => {
            format!("You have VPN access until <b>{}</b>.\nThe file to connect with comes here by itself.", at(until))
        }
        (Russian, SubscriptionNotice::Extended { until }) => {
            format!("Доступ к VPN продлён до <b>{}</b>.\nНастраивать ничего не нужно: работает прежний файл.", at(until))
        }
        (English, SubscriptionNotice::Extended { until }) => {
            format!(
                "Your VPN access was extended until <b>{}</b>.\nThere is nothing to set up: the same file works.",
                at(until)
            )
        }
        (Russian, SubscriptionNotice::Frozen) => {
            "Доступ к VPN приостановлен. Оставшееся время не идёт и сохранится за вами.".to_owned()
        }
        (English, SubscriptionNotice::Frozen) => {
            "Your VPN access is paused. The time that is left stands still and stays yours.".to_owned()
        }
        (Russian, SubscriptionNotice::Unfrozen { until }) => {
            format!("Доступ к VPN снова открыт, до <b>{}</b>.\nРаботает прежний файл.", at(until))
        }
        (English, SubscriptionNotice::Unfrozen { until }) => {
            format!("Your VPN access is open again, until <b>{}</b>.\nThe same file works.", at(until))
        }
        (Russian, SubscriptionNotice::Revoked) => "Доступ к VPN закрыт. Файл больше не работает.".to_owned(),
        (English, SubscriptionNotice::Revoked) => "Your VPN access was closed. The file works no more.".to_owned(),
        (Russian, SubscriptionNotice::NotConnected) => {
            "Похоже, к VPN ещё не подключилось ни одно устройство. Файл, QR-код и инструкция — выше в этом чате. \
             Если что-то не получается, напишите нам."
                .to_owned()
        }
        (English, SubscriptionNotice::NotConnected) => {
            "It looks like no device has connected to the VPN yet. The file, the QR code and how to use them are above in \
             this chat. If something does not work, write to us."
                .to_owned()
        }
        (Russian, SubscriptionNotice::Waiting) => {
            "Оплата получена, спасибо! Свободных мест в VPN сейчас нет: как только место появится, файл придёт сюда сам. \
             Не хотите ждать — напишите нам, и мы вернём деньги."
                .to_owned()
        }
        (English, SubscriptionNotice::Waiting) => {
            "We have your payment, thank you! The VPN has no free place right now: as soon as there is one, the file comes \
             here by itself. If you would rather not wait, write to us and we will refund you."
                .to_owned()
        }
    }
}

/// A moment for people.
pub(super) fn moment(language: Language, time: Time) -> String {
    let format = match language {
        Russian => "%d.%m.%Y, %H:%M UTC",
        English => "%-d %B %Y, %H:%M UTC",
    };
    match jiff::Timestamp::from_millisecond(time.millis()) {
        Ok(stamp) => stamp.strftime(format).to_string(),
        Err(_) => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::Chance;
    use semel_telegram::{CAPTION_LIMIT, TEXT_LIMIT, utf16_len};

    use super::*;

    /// 2023-11-14 22:13:20 UTC.
    const UNTIL: Time = Time::from_millis(1_700_000_000_000);
    const BOTH: [Language; 2] = [Russian, English];

    fn device(order: Option<&OrderId>) -> Device<'_> {
        Device { number: 2, tunnel: "shop_42_2", until: UNTIL, amnezia: false, own_key: false, several: false, order }
    }

    #[test]
    fn the_words_under_the_file_name_device_end_and_order() {
        let order = OrderId::new(UNTIL, &Chance::seeded(1));
        let russian = file(Russian, &device(Some(&order)));
        assert!(russian.contains("Устройство 2: <code>shop_42_2</code>"), "{russian}");
        assert!(russian.contains("Оплачено до <b>14.11.2023, 22:13 UTC</b>"), "{russian}");
        assert!(russian.ends_with(&format!("Заказ <code>{order}</code>")), "{russian}");
        let english = file(English, &device(Some(&order)));
        assert!(english.contains("Device 2: <code>shop_42_2</code>"), "{english}");
        assert!(english.contains("Paid until <b>14 November 2023, 22:13 UTC</b>"), "{english}");
        assert!(!file(English, &device(None)).contains("Order"), "nothing was ordered");
    }

    #[test]
    fn captions_fit_and_what_is_foreign_in_them_is_escaped() {
        let order = OrderId::new(UNTIL, &Chance::seeded(1));
        for language in BOTH {
            let device = Device { tunnel: "<b>&", own_key: true, amnezia: true, ..device(Some(&order)) };
            for caption in [file(language, &device), qr(language, &device), howto(language, &device)] {
                assert!(utf16_len(&caption) <= CAPTION_LIMIT, "{caption}");
                assert!(caption.contains("<code>&lt;b&gt;&amp;</code>"), "{caption}");
            }
        }
    }

    #[test]
    fn the_owners_words_get_the_values_of_the_device() {
        let order = OrderId::new(UNTIL, &Chance::seeded(1));
        let device = Device { tunnel: "<b>&", own_key: true, ..device(Some(&order)) };
        let words = "{device} {tunnel} {until} {order} {app} {own_key} {else}";
        let text = own(words, English, &device);
        let wanted = format!("2 &lt;b&gt;&amp; 14 November 2023, 22:13 UTC {order} <a href=");
        assert!(text.starts_with(&wanted) && text.ends_with("only you know it. {else}"), "{text}");
        let bare = Device { own_key: false, order: None, ..device };
        assert_eq!(own("[{order}{own_key}]", Russian, &bare), "[]");
    }

    #[test]
    fn the_how_to_names_the_app_that_reads_the_file() {
        for language in BOTH {
            let plain = howto(language, &device(None));
            assert!(plain.contains(">WireGuard</a>") && plain.contains("QR") && plain.contains("shop_42_2"), "{plain}");
            let other = howto(language, &Device { amnezia: true, ..device(None) });
            assert!(other.contains(">AmneziaWG</a>"), "{other}");
            let own = howto(language, &Device { own_key: true, ..device(None) });
            assert!(own.contains("PrivateKey") && !own.contains("QR"), "a file without its key is not scanned: {own}");
        }
    }

    #[test]
    fn the_how_to_for_several_devices_names_none_of_them() {
        for language in BOTH {
            let family = howto(language, &Device { several: true, ..device(None) });
            assert!(family.contains(">WireGuard</a>") && family.contains("QR"), "{family}");
            assert!(!family.contains("shop_42_2"), "{family}");
            let own = howto(language, &Device { several: true, own_key: true, ..device(None) });
            assert!(own.contains("PrivateKey") && utf16_len(&own) <= TEXT_LIMIT, "{own}");
        }
    }

    #[test]
    fn every_notice_is_said_in_both_languages_with_its_moment() {
        let until = UNTIL;
        let with_moment = [
            SubscriptionNotice::EndsIn { until, left: Left::Days3 },
            SubscriptionNotice::EndsIn { until, left: Left::Day1 },
            SubscriptionNotice::EndsIn { until, left: Left::Today },
            SubscriptionNotice::Ended { until },
            SubscriptionNotice::Renewed { until },
            SubscriptionNotice::Granted { until },
            SubscriptionNotice::Extended { until },
            SubscriptionNotice::Unfrozen { until },
        ];
        let without = [
            SubscriptionNotice::Frozen,
            SubscriptionNotice::Revoked,
            SubscriptionNotice::NotConnected,
            SubscriptionNotice::Waiting,
        ];
        let mut texts = Vec::new();
        for notice in with_moment {
            let (russian, english) = (subscription(Russian, &notice), subscription(English, &notice));
            assert!(russian.contains("<b>14.11.2023, 22:13 UTC</b>"), "{russian}");
            assert!(english.contains("<b>14 November 2023, 22:13 UTC</b>"), "{english}");
            texts.extend([russian, english]);
        }
        texts.extend(without.iter().flat_map(|notice| BOTH.map(|language| subscription(language, notice))));
        let mut once = texts.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), texts.len(), "no two notices say the same");
        assert!(texts.iter().all(|text| utf16_len(text) <= TEXT_LIMIT && text.contains("VPN")));
    }
}
