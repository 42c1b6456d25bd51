//! Every word of the bot, in Russian and in English. Everything foreign in them is escaped.

use semel_money::Amount;
use semel_telegram::html_escape;

use super::model::{Card, Topic};
use crate::Error;
use crate::catalog::Product;
use crate::messages::Language::{self, English, Russian};
pub(super) use crate::messages::sum;
use crate::orders::{OrderView, State};
use crate::subscriptions;
use crate::vpn::Peer;

/// The longest description on a card, in characters: with title and price it fits one message whatever it says.
const DESCRIPTION_CHARS: usize = 3000;
/// The longest title on a button, in characters.
const BUTTON_CHARS: usize = 40;

/// The menu of commands as Telegram keeps it: it is there even while this program is not.
///
/// Where nobody is rewarded for friends, `rewards` is false and nobody is asked to bring any.
pub fn commands(language: Language, rewards: bool) -> Vec<(&'static str, &'static str)> {
    let mut menu = match language {
        Russian => vec![
            ("start", "Меню"),
            ("catalog", "Каталог"),
            ("orders", "Мои заказы"),
            ("access", "Мой доступ и ключи"),
            ("balance", "Баланс"),
            ("ref", "Пригласить друга"),
            ("language", "Язык"),
            ("settings", "Что присылать"),
            ("help", "Помощь"),
            ("support", "Написать в поддержку"),
            ("paysupport", "Вопрос об оплате"),
            ("terms", "Условия"),
            ("privacy", "Что мы храним"),
            ("cancel", "Отменить заказ"),
        ],
        English => vec![
            ("start", "Menu"),
            ("catalog", "Catalog"),
            ("orders", "My orders"),
            ("access", "My access and keys"),
            ("balance", "Balance"),
            ("ref", "Invite a friend"),
            ("language", "Language"),
            ("settings", "What to be told"),
            ("help", "Help"),
            ("support", "Write to support"),
            ("paysupport", "A question about a payment"),
            ("terms", "Terms"),
            ("privacy", "What we keep"),
            ("cancel", "Cancel an order"),
        ],
    };
    menu.retain(|(name, _)| rewards || *name != "ref");
    menu
}

/// One of two words.
pub(super) fn word(language: Language, russian: &'static str, english: &'static str) -> &'static str {
    match language {
        Russian => russian,
        English => english,
    }
}

pub(super) fn greeting(language: Language) -> &'static str {
    word(
        language,
        "Здравствуйте! Здесь можно купить и сразу получить. Выберите, что вам нужно.",
        "Hello! Buy here and get it at once. Choose what you need.",
    )
}

pub(super) fn help(language: Language) -> &'static str {
    word(
        language,
        "Покупайте кнопками: каталог → товар → способ оплаты. Купленное придёт в этот чат и останется в «Мои заказы».",
        "Buy with the buttons: catalog → product → way to pay. What you bought comes to this chat and stays in “My orders”.",
    )
}

/// Every command, a line each; the owner has two more.
pub(super) fn command_list(language: Language, rewards: bool, is_owner: bool) -> String {
    let mut all = commands(language, rewards);
    if is_owner {
        all.push((
            "admin",
            word(
                language,
                "Для владельца: деньги и что требует внимания",
                "For the owner: money, and what needs a look",
            ),
        ));
        all.push((
            "broadcast",
            word(language, "Для владельца: написать всем покупателям", "For the owner: write to all customers"),
        ));
    }
    let lines: Vec<String> = all.iter().map(|(name, says)| format!("/{name} — {says}")).collect();
    lines.join("\n")
}

pub(super) fn lost(language: Language) -> &'static str {
    word(language, "Я понимаю команды и кнопки. Вот меню.", "I understand commands and buttons. Here is the menu.")
}

/// A button that is forged, somebody else's or too old.
pub(super) fn no_such_button(language: Language) -> &'static str {
    word(
        language,
        "Эта кнопка больше не действует. Откройте нужное заново из меню.",
        "This button does not work any more. Please open what you need from the menu.",
    )
}

/// Shown over the chat as soon as a button is pressed that does something.
pub(super) fn one_moment(language: Language) -> &'static str {
    word(language, "Секунду…", "One moment…")
}

/// Above the menu of a bot that cannot look anything up right now.
pub(super) fn one_moment_menu(language: Language) -> &'static str {
    word(
        language,
        "Секунду: сейчас отвечаю медленно. Ничего не потеряно, ответ придёт сам. Вот меню.",
        "One moment: answers are slow right now. Nothing is lost, and the answer comes by itself. Here is the menu.",
    )
}

/// Shown over the chat when a button was pressed before.
pub(super) fn pressed_before(language: Language) -> &'static str {
    word(language, "Уже сделано: ответ — выше в чате.", "Done already: the answer is in the chat.")
}

pub(super) fn nothing_on_sale(language: Language) -> &'static str {
    word(language, "Сейчас в продаже ничего нет.", "Nothing is on sale right now.")
}

pub(super) fn not_on_sale(language: Language) -> &'static str {
    word(language, "Этого товара больше нет в продаже.", "This product is not on sale any more.")
}

pub(super) fn new_price(language: Language) -> &'static str {
    word(
        language,
        "Товар изменился, пока вы выбирали: по старой цене ничего не куплено. Вот как он выглядит теперь.",
        "The product has changed meanwhile: nothing was bought for the old price. This is how it looks now.",
    )
}

pub(super) fn sold_out(language: Language) -> &'static str {
    word(language, "Этот товар закончился.", "This product is sold out.")
}

/// A title and a price for a button.
pub(super) fn offer(language: Language, product: &Product) -> String {
    let title: String = product.title.chars().take(BUTTON_CHARS).collect();
    let gone = if is_gone(product) { word(language, " · нет в наличии", " · sold out") } else { "" };
    format!("{title} — {}{gone}", sum(product.price))
}

/// Whether nobody can buy it now because there is none of it.
pub(super) fn is_gone(product: &Product) -> bool {
    product.delivery == crate::catalog::Delivery::Instant && product.stock.is_some_and(|levels| levels.available < 1)
}

/// A product as its card says it.
pub(super) fn product(language: Language, product: &Product) -> String {
    let mut html = format!("<b>{}</b>", html_escape(&product.title));
    if !product.description.is_empty() {
        let description: String = product.description.chars().take(DESCRIPTION_CHARS).collect();
        html.push_str(&format!("\n\n{}", html_escape(&description)));
    }
    if let (Some(seconds), Some(devices)) = (product.duration_s, product.devices) {
        let days = seconds / 86_400;
        html.push_str(&match language {
            Russian => format!("\n\nСрок: {days} дн., устройств: {devices}"),
            English => format!("\n\nDays: {days}, devices: {devices}"),
        });
    }
    let price = word(language, "Цена", "Price");
    html.push_str(&format!("\n\n{price}: <b>{}</b>", sum(product.price)));
    if is_gone(product) {
        html.push_str(&format!("\n{}", sold_out(language)));
    } else if product.promise_s > 0 {
        let hours = (product.promise_s + 3599) / 3600;
        html.push_str(&match language {
            Russian => format!("\nПод заказ: до {hours} ч после оплаты"),
            English => format!("\nMade to order: within {hours} h after payment"),
        });
    }
    html
}

/// The words on a button for a way to pay.
pub(super) fn way(language: Language, way: &str, price: Amount) -> String {
    let name = match way {
        "yookassa" => word(language, "Картой или СБП", "Card (YooKassa)"),
        "heleket" => word(language, "Криптовалютой (Heleket)", "Crypto (Heleket)"),
        "crystalpay" => "CrystalPAY",
        "stars" => return format!("Telegram Stars — {}", sum(price)),
        _ => word(language, "С баланса", "From the balance"),
    };
    format!("{name} — {}", sum(price))
}

pub(super) fn choose_way(language: Language) -> &'static str {
    word(language, "Как вы хотите заплатить?", "How would you like to pay?")
}

pub(super) fn no_way(language: Language) -> &'static str {
    word(
        language,
        "Сейчас нет ни одного способа оплаты. Напишите в /support.",
        "There is no way to pay right now. Please write to /support.",
    )
}

/// The receipt of a payment has to go somewhere.
pub(super) fn contact(language: Language) -> &'static str {
    word(
        language,
        "Для чека нужен ваш e-mail или телефон. Напишите его следующим сообщением, например name@example.com или +79001234567: чек \
         придёт туда, и заказ продолжится. Для следующих заказов мы его запомним. /cancel — не надо.",
        "The receipt needs your e-mail or phone. Write it in your next message, like name@example.com or +79001234567: the receipt \
         goes there, and your order goes on. It is kept for your next orders. /cancel ends this.",
    )
}

/// On the button that leads to where receipts go.
pub(super) fn receipts(language: Language) -> &'static str {
    word(language, "🧾 Куда слать чеки", "🧾 Receipts")
}

/// Receipts may go somewhere else from now on.
pub(super) fn other_contact(language: Language, known: Option<&str>) -> String {
    let now = match known {
        Some(known) => format!("{} {}.", word(language, "Чеки приходят на", "Receipts go to"), html_escape(known)),
        None => word(language, "Чеки пока никуда не приходят.", "Receipts go nowhere yet.").to_owned(),
    };
    let how = word(
        language,
        "Напишите другой e-mail или телефон, например name@example.com или +79001234567. /cancel — оставить как есть.",
        "Write another e-mail or phone, like name@example.com or +79001234567. /cancel leaves it as it is.",
    );
    format!("{now} {how}")
}

/// Receipts go somewhere else from now on.
pub(super) fn contact_kept(language: Language) -> &'static str {
    word(language, "Готово: чеки будут приходить туда.", "Done: receipts go there from now on.")
}

/// Who was about to change where receipts go leaves it.
pub(super) fn nothing_changed(language: Language) -> &'static str {
    word(language, "Хорошо, всё осталось как было.", "All right, everything is as it was.")
}

/// What was written is neither an e-mail nor a phone.
pub(super) fn no_contact(language: Language) -> &'static str {
    word(
        language,
        "Это не похоже ни на e-mail (name@example.com), ни на телефон с кодом страны (+79001234567). Напишите ещё раз или /cancel.",
        "This is neither an e-mail (name@example.com) nor a phone with its country code (+79001234567). Write it once more, or /cancel.",
    )
}

/// Who was about to buy gives nothing that a receipt could go to.
pub(super) fn nothing_ordered(language: Language) -> &'static str {
    word(
        language,
        "Хорошо, ничего не заказано. Кнопка оплаты ещё действует.",
        "All right, nothing was ordered. The button to pay still works.",
    )
}

/// On the button that gives up one link to pay for another.
pub(super) fn another_way(language: Language) -> &'static str {
    word(language, "Другой способ оплаты", "Another way to pay")
}

/// Above the ways to pay, when the order with the other way was called off.
pub(super) fn instead(language: Language, order: &str) -> String {
    let next = word(language, "Вместо него будет новый:", "A new one takes its place:");
    format!("{} {next}", cancelled(language, order))
}

/// Where an order stands, for its customer.
pub(super) fn state(language: Language, state: State) -> &'static str {
    match state {
        State::Pending => word(language, "ждёт оплаты", "waits for payment"),
        State::Paid => word(language, "оплачен, выдаём", "paid, on its way"),
        State::AwaitingStock => word(language, "оплачен, ждём поступления", "paid, waits for stock"),
        State::Partial => word(language, "выдан частично", "partly delivered"),
        State::Delivered => word(language, "выдан", "delivered"),
        State::Expired => word(language, "срок оплаты вышел", "expired"),
        State::Cancelled => word(language, "отменён", "cancelled"),
        State::RefundPending => word(language, "возвращаем деньги", "refund on its way"),
        State::Refunded => word(language, "деньги возвращены", "refunded"),
    }
}

/// An order with its lines. No goods stand here: they go by a message of their own.
pub(super) fn order(language: Language, view: &OrderView) -> String {
    let head = word(language, "Заказ", "Order");
    let lines: Vec<String> = view
        .items
        .iter()
        .map(|item| format!("{} × {} — {}", html_escape(&item.title), item.quantity, sum(item.price)))
        .collect();
    let total = word(language, "Итого", "Total");
    let mut html = format!(
        "{head} <code>{}</code>: {}\n\n{}\n{total}: <b>{}</b>",
        html_escape(&view.id),
        state(language, view.status),
        lines.join("\n"),
        sum(view.total)
    );
    if view.status == State::Pending {
        let until = word(language, "Оплатите до", "Pay until");
        html.push_str(&format!("\n{until} {} UTC", minute(&view.deadline)));
    }
    html
}

/// A moment of RFC 3339 to the minute.
pub(super) fn minute(at: &str) -> String {
    html_escape(&at.chars().take(16).collect::<String>().replace('T', " "))
}

/// A day of a moment.
pub(super) fn day(at: semel_kernel::clock::Time) -> String {
    at.to_string().chars().take(10).collect()
}

pub(super) fn pay(language: Language, total: Amount) -> String {
    format!("{} {}", word(language, "Оплатить", "Pay"), sum(total))
}

/// The order is paid by a message of its own.
pub(super) fn invoice_comes(language: Language) -> &'static str {
    word(
        language,
        "Счёт в звёздах — отдельным сообщением в этом чате: нажмите в нём «Заплатить».",
        "The invoice in Stars is a message of its own in this chat: press Pay in it.",
    )
}

/// The order stands, and the provider has not given its link yet.
pub(super) fn link_comes(language: Language) -> &'static str {
    word(
        language,
        "Заказ оформлен, но платёжная система пока не отвечает. Ссылка на оплату придёт сюда, как только она ответит.",
        "Your order is made, but the payment provider does not answer yet. The link to pay comes here as soon as it does.",
    )
}

pub(super) fn other_way(language: Language) -> &'static str {
    word(
        language,
        "Этот способ оплаты сейчас не принимает платёж. Заказ отменён, деньги не списаны. Выберите другой способ.",
        "This way to pay does not take the payment now. The order is cancelled and nothing was charged. Choose another one.",
    )
}

pub(super) fn no_orders(language: Language) -> &'static str {
    word(language, "У вас пока нет заказов.", "You have no orders yet.")
}

pub(super) fn orders(language: Language) -> &'static str {
    word(language, "Ваши последние заказы:", "Your latest orders:")
}

pub(super) fn goods_again(language: Language) -> &'static str {
    word(language, "Прислать товар ещё раз", "Send the goods again")
}

pub(super) fn sending(language: Language) -> &'static str {
    word(language, "Отправляем ещё раз.", "Sending it again.")
}

pub(super) fn nothing_to_cancel(language: Language) -> &'static str {
    word(language, "Неоплаченных заказов нет, отменять нечего.", "There is no unpaid order, so nothing to cancel.")
}

pub(super) fn cancel_which(language: Language) -> &'static str {
    word(language, "Какой заказ отменить?", "Which order shall be cancelled?")
}

pub(super) fn cancelled(language: Language, order: &str) -> String {
    match language {
        Russian => format!("Заказ <code>{}</code> отменён.", html_escape(order)),
        English => format!("Order <code>{}</code> is cancelled.", html_escape(order)),
    }
}

pub(super) fn no_access(language: Language) -> &'static str {
    word(language, "У вас пока нет доступа к VPN.", "You have no VPN access yet.")
}

pub(super) fn no_vpn(language: Language) -> &'static str {
    word(language, "Доступ к VPN здесь не продаётся.", "VPN access is not sold here.")
}

/// A device of a subscription.
pub(super) fn device(language: Language, peer: &Peer) -> String {
    let number = peer.device;
    let seen = match (peer.last_handshake_at.or(peer.first_handshake_at), peer.own_key) {
        (Some(at), _) => format!("{} {} UTC", word(language, "был на связи", "seen"), minute(&at.to_string())),
        (None, true) => word(language, "со своим ключом", "with your own key").to_owned(),
        (None, false) => word(language, "ещё не подключалось", "not connected yet").to_owned(),
    };
    format!("{} {number}: {seen}", word(language, "Устройство", "Device"))
}

pub(super) fn new_key(language: Language, device: i64) -> String {
    format!("{} {device}", word(language, "Заменить ключ устройства", "New key for device"))
}

/// Before a device gets another key.
pub(super) fn new_key_sure(language: Language, device: i64) -> String {
    match language {
        Russian => format!(
            "Устройство {device} получит новый файл, а старый сразу перестанет работать. Это нужно, если файл попал в чужие руки. \
             Заменить?"
        ),
        English => format!(
            "Device {device} gets a new file, and the old one stops working at once. Do this when somebody else has your file. \
             Replace it?"
        ),
    }
}

pub(super) fn new_key_yes(language: Language) -> &'static str {
    word(language, "Да, заменить", "Yes, replace it")
}

pub(super) fn new_key_comes(language: Language) -> &'static str {
    word(
        language,
        "Ключ заменён: старый файл больше не работает, новый придёт сюда.",
        "The key is replaced: the old file does not work any more, and the new one comes here.",
    )
}

/// A device had enough keys today.
pub(super) fn new_key_later(language: Language) -> &'static str {
    word(
        language,
        "Это устройство уже получало новые ключи за последние сутки. Попробуйте завтра или напишите в /support.",
        "This device got new keys within the last day already. Please try tomorrow, or write to /support.",
    )
}

/// Above the switches of what a customer is told.
pub(super) fn settings(language: Language) -> &'static str {
    word(
        language,
        "Что присылать? Нажмите, чтобы включить или выключить. О деньгах и покупках сообщаем всегда.",
        "What do you want to be told? Press to switch on or off. Money and what you bought is always told.",
    )
}

/// A topic with its switch as it stands.
pub(super) fn topic(language: Language, topic: Topic, is_on: bool) -> String {
    let words = match topic {
        Topic::Reminders => word(language, "Напоминания о сроке", "Reminders"),
        Topic::Campaigns => word(language, "Новости и предложения", "News and offers"),
        Topic::Digests => word(language, "Дайджесты", "Digests"),
        Topic::Rewards => word(language, "Награды за друзей", "Rewards for friends"),
    };
    format!("{} {words}", if is_on { "✅" } else { "🔕" })
}

/// One subscription.
pub(super) fn subscription(language: Language, sub: &subscriptions::Subscription) -> String {
    use subscriptions::State as Sub;
    let state = match sub.state {
        Sub::Trial => word(language, "пробный", "trial"),
        Sub::Active => word(language, "работает", "active"),
        Sub::Grace => word(language, "время вышло, скоро отключится", "time is over, it ends soon"),
        Sub::Expired => word(language, "отключён", "expired"),
        Sub::Frozen => word(language, "приостановлен", "frozen"),
        Sub::Revoked => word(language, "закрыт", "closed"),
    };
    let until = day(sub.paid_until);
    match language {
        Russian => format!("Доступ: <b>{state}</b>, до {until}, устройств: {}", sub.devices),
        English => format!("Access: <b>{state}</b>, until {until}, devices: {}", sub.devices),
    }
}

pub(super) fn file_again(language: Language, device: i64) -> String {
    format!("{} {device}", word(language, "Файл для устройства", "File for device"))
}

pub(super) fn renew(language: Language) -> &'static str {
    word(language, "Продлить", "Renew")
}

pub(super) fn nothing_renews(language: Language) -> &'static str {
    word(
        language,
        "Для этого доступа сейчас нет подходящего товара. Посмотрите каталог.",
        "Nothing on sale renews this access right now. Please look at the catalog.",
    )
}

pub(super) fn trial_begun(language: Language) -> &'static str {
    word(language, "Пробный доступ открыт: файл придёт сюда.", "Your trial has begun: the file comes here.")
}

pub(super) fn no_trial(language: Language) -> &'static str {
    word(
        language,
        "Пробный доступ даётся один раз и тем, у кого ещё нет доступа. Сейчас его открыть нельзя.",
        "A trial is given once, to those who have no access yet. It cannot begin now.",
    )
}

pub(super) fn try_free(language: Language) -> &'static str {
    word(language, "Попробовать бесплатно", "Try for free")
}

pub(super) fn balance(language: Language, balances: &[Amount]) -> String {
    let head = word(language, "На вашем балансе", "Your balance");
    if balances.is_empty() {
        return format!("{head}: 0");
    }
    let sums: Vec<String> = balances.iter().map(|one| format!("<b>{}</b>", sum(*one))).collect();
    format!("{head}: {}", sums.join(", "))
}

/// The link for friends, or the words that do the same where the bot's name is not known.
pub(super) fn invite(language: Language, name: Option<&str>, person: i64, share: Option<&str>, friends: i64) -> String {
    let link = match name {
        Some(name) => format!("https://t.me/{}?start=ref_{person}", html_escape(name)),
        None => format!("<code>/start ref_{person}</code>"),
    };
    let head = match (language, share) {
        (Russian, Some(share)) => format!("Пригласите друга: с его первой покупки вы получите {share} % на баланс."),
        (English, Some(share)) => format!("Invite a friend: you get {share} % of the first purchase on your balance."),
        (Russian, None) => "Ваша ссылка для друзей:".to_owned(),
        (English, None) => "Your link for friends:".to_owned(),
    };
    let came = word(language, "Пришло друзей", "Friends so far");
    format!("{head}\n\n{link}\n\n{came}: {friends}")
}

pub(super) fn choose_language(language: Language) -> &'static str {
    word(language, "Выберите язык. Choose your language.", "Choose your language. Выберите язык.")
}

pub(super) fn language_is(language: Language) -> &'static str {
    word(language, "Теперь говорим по-русски.", "We speak English from now on.")
}

pub(super) fn support_how(language: Language) -> &'static str {
    word(
        language,
        "Напишите следующим сообщением, что случилось, с номером заказа: его прочтёт владелец магазина. /cancel — не надо.",
        "Write in your next message what happened, with the number of the order: the shop's owner will read it. /cancel ends this.",
    )
}

/// What Telegram wants to be there wherever Stars are taken: it answers no questions about them itself.
pub(super) fn paysupport(language: Language) -> &'static str {
    word(
        language,
        "Об оплате — в том числе звёздами — отвечает владелец магазина, а не поддержка Telegram. Напишите следующим \
         сообщением, что случилось, с номером заказа; /cancel — не надо. Деньги не пропадают: оплата, пришедшая поздно или дважды, \
         ложится на баланс — звёзды звёздами, и ими можно купить следующее. Звёзды, которыми оплачен заказ, владелец может вернуть \
         целиком туда, откуда они пришли.",
        "The shop's owner answers for payments, also those in Stars; Telegram's support does not. Write in your next \
         message what happened, with the number of the order; /cancel ends this. No money is lost: a payment that came \
         late or twice goes to your balance, Stars as Stars, and buys the next thing. The Stars that paid an order can be \
         given back by the owner, whole, to where they came from.",
    )
}

/// The words on the button that leads to the owner's support.
pub(super) fn support_link(language: Language) -> &'static str {
    word(language, "Поддержка", "Support")
}

pub(super) fn support_sent(language: Language) -> &'static str {
    word(language, "Передали владельцу магазина. Он ответит вам.", "The shop's owner has it now and will answer you.")
}

/// What the owner answered. The words are escaped already.
pub(super) fn answer(language: Language, words: &str) -> String {
    let head = word(language, "Ответ магазина", "The shop answers");
    let more = word(language, "Написать ещё: /support", "To write again: /support");
    format!("<b>{head}:</b>\n{words}\n\n{more}")
}

/// Who was about to write to the owner thought better of it.
pub(super) fn nothing_passed_on(language: Language) -> &'static str {
    word(language, "Хорошо, владельцу ничего не передали.", "All right, nothing was passed on to the owner.")
}

/// More words than anybody reads in a day.
pub(super) fn support_enough(language: Language) -> &'static str {
    word(
        language,
        "Сегодня вы написали уже много раз: владелец магазина получил предыдущие сообщения, а это — нет. Напишите завтра.",
        "You wrote many times today: the shop's owner has your earlier messages, but not this one. Please write tomorrow.",
    )
}

/// The shop names nobody who reads it.
pub(super) fn support_nobody(language: Language) -> &'static str {
    word(
        language,
        "Здесь сейчас некому ответить, и сообщение никому не передано.",
        "Nobody can answer here right now, and your message was passed on to nobody.",
    )
}

pub(super) fn terms(language: Language) -> &'static str {
    word(
        language,
        "Цена на кнопке — окончательная. Заказ ждёт оплаты до указанного срока и держит для вас товар. Купленное приходит \
         в этот чат. Деньги, пришедшие поздно, в другой сумме или дважды, не пропадают: они ложатся на ваш баланс. О \
         возврате пишите в /support.",
        "The price on the button is final. An order waits for its payment until the time it names and holds the goods for \
         you. What you bought comes to this chat. Money that comes late, in another amount or twice is not lost: it goes to \
         your balance. For a refund write to /support.",
    )
}

pub(super) fn privacy(language: Language) -> &'static str {
    word(
        language,
        "Мы храним номер вашего Telegram, язык, e-mail или телефон для чеков, если вы его дали, заказы, платежи и доступ — столько, сколько нужно, чтобы выдать купленное и \
         вести учёт. Ваши сообщения боту стираются, как только на них дан ответ, а если что-то сломалось — через три дня; обращения в \
         поддержку хранит владелец. О ваших данных пишите в /support.",
        "We keep the number of your Telegram, your language, an e-mail or phone for receipts if you gave one, orders, payments and access, as needed to hand over what you \
         bought and to keep the books. What you write to the bot is erased as soon as it is answered, and after three days if \
         something broke; the owner keeps what you write to support. About your data write to /support.",
    )
}

/// Why nothing was done, for a customer: never the program's own words.
pub(super) fn refusal(language: Language, error: &Error) -> &'static str {
    match error {
        Error::SoldOut { .. } => sold_out(language),
        Error::Insufficient { .. } => {
            word(language, "На балансе не хватает денег.", "There is not enough money on your balance.")
        }
        Error::TooManyUnpaid { .. } => word(
            language,
            "У вас уже есть неоплаченные заказы. Оплатите их или отмените: /cancel.",
            "You have unpaid orders already. Pay them, or cancel them: /cancel.",
        ),
        Error::SafeMode => closed(language),
        _ => word(
            language,
            "Сейчас это не получилось; ничего не сделано. Попробуйте из меню или напишите в /support.",
            "That did not work now, and nothing was done. Try it from the menu, or write to /support.",
        ),
    }
}

/// The shop sells nothing at the moment.
pub(super) fn closed(language: Language) -> &'static str {
    word(
        language,
        "Магазин ненадолго приостановил продажи. Попробуйте чуть позже.",
        "The shop has paused sales for a moment. Please try again a little later.",
    )
}

/// The menu below the greeting.
pub(super) fn menu(language: Language, has_vpn: bool, rewards: bool, html: &str) -> Card {
    use super::model::Door;
    let card = Card::text(html).row(vec![Door::Catalog(None).button(word(language, "🛍 Каталог", "🛍 Catalog"))]);
    let mut own = vec![Door::Orders.button(word(language, "📦 Мои заказы", "📦 My orders"))];
    if has_vpn {
        own.push(Door::Access.button(word(language, "🔐 Мой доступ", "🔐 My access")));
    }
    let mut money = vec![Door::Balance.button(word(language, "💰 Баланс", "💰 Balance"))];
    if rewards {
        money.push(Door::Invite.button(word(language, "🤝 Пригласить", "🤝 Invite")));
    }
    card.row(own)
        .row(money)
        .row(vec![
            Door::Languages.button(word(language, "🌐 Язык", "🌐 Language")),
            Door::Settings.button(word(language, "⚙️ Настройки", "⚙️ Settings")),
        ])
        .row(vec![Door::Help.button(word(language, "❓ Помощь", "❓ Help"))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_menus_have_the_same_commands_in_telegrams_form() {
        let (russian, english) = (commands(Russian, true), commands(English, true));
        assert_eq!(commands(English, false).len() + 1, english.len(), "nobody is sent for friends in vain");
        let names = |menu: &[(&'static str, &str)]| menu.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(&russian), names(&english));
        for (name, says) in russian.iter().chain(&english) {
            assert!(name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!((1..=256).contains(&says.chars().count()), "{says}");
        }
    }

    #[test]
    fn a_refusal_never_says_what_the_program_says_to_itself() {
        let error = Error::Conflict("order ord_1 <is> refunded".into());
        for language in [Russian, English] {
            assert!(!refusal(language, &error).contains("ord_1"));
        }
    }
}
