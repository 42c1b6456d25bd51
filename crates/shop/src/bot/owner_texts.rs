//! The words of the bot for its owner, in Russian and in English. Everything foreign in them is escaped.

use semel_telegram::html_escape;

use super::texts::word;
use crate::campaigns::State;
use crate::campaigns::preview::Preview;
use crate::campaigns::view::View;
use crate::checkout::PaymentState;
use crate::messages::Language::{self, English, Russian};

/// Who takes money, as people call them.
pub(super) fn provider(word: &str) -> String {
    match word {
        "yookassa" => "YooKassa".to_owned(),
        "heleket" => "Heleket".to_owned(),
        "crystalpay" => "CrystalPAY".to_owned(),
        "stars" => "Telegram Stars".to_owned(),
        other => html_escape(other),
    }
}

/// Why a payment does not go on.
pub(super) fn why(language: Language, state: PaymentState) -> &'static str {
    match state {
        PaymentState::Created => word(language, "провайдер ещё не ответил", "the provider has not answered yet"),
        PaymentState::Waiting => word(language, "провайдер держит деньги", "the provider holds the money"),
        PaymentState::Short => word(language, "пришло меньше, чем нужно", "too little came"),
        PaymentState::Locked => {
            word(language, "задержан проверкой провайдера", "held by the provider's compliance check")
        }
        _ => word(language, "не движется", "does not move"),
    }
}

/// A reply to a message that no customer's words stand in.
pub(super) fn nobody_asked(language: Language) -> &'static str {
    word(
        language,
        "Это никому не передано: отвечают на сообщение с вопросом покупателя, и не позже, чем оно сотрётся. Его номер в вопросе ведёт \
         в чат с ним.",
        "This was passed on to nobody: reply to a message with a customer's question, before that is erased. The number in the \
         question leads to the chat with them.",
    )
}

/// A reply without words.
pub(super) fn only_words(language: Language) -> &'static str {
    word(
        language,
        "Покупателю можно передать только текст. Ничего не передано.",
        "Only words can be passed on to a customer. Nothing was.",
    )
}

pub(super) fn button(language: Language) -> &'static str {
    word(language, "📣 Рассылка", "📣 Broadcast")
}

pub(super) fn ask(language: Language) -> &'static str {
    word(
        language,
        "Напишите одним сообщением, что разослать всем покупателям. Жирный, курсив и ссылки сохранятся. Сначала вы увидите, сколько \
         людей это получит, и получите это сами. /cancel — не надо.",
        "Write in one message what goes to all customers. Bold, italics and links are kept. First you see how many people get it, and \
         you get it yourself. /cancel ends this.",
    )
}

pub(super) fn cancelled(language: Language) -> &'static str {
    word(language, "Рассылки не будет.", "There is no broadcast.")
}

pub(super) fn text_only(language: Language) -> &'static str {
    word(
        language,
        "Здесь можно разослать только текст. Картинку или файл рассылает `semel broadcast`. Напишите текст или /cancel.",
        "Only a text can be sent from here. A picture or a file goes by `semel broadcast`. Write a text, or /cancel.",
    )
}

/// Telegram would not take it. The reason is ours, in English.
pub(super) fn refused(language: Language, reason: &str) -> String {
    let head = word(language, "Так отправить нельзя", "This cannot be sent");
    let again = word(language, "Напишите иначе или /cancel.", "Write it in another way, or /cancel.");
    format!("{head}: {}. {again}", html_escape(reason))
}

pub(super) fn test_comes(language: Language) -> &'static str {
    word(
        language,
        "Черновик готов. Проба придёт вам отдельным сообщением: посмотрите на неё.",
        "The draft is ready. A test comes to you as a message of its own: look at it.",
    )
}

pub(super) fn changed(language: Language) -> &'static str {
    word(
        language,
        "Черновик с тех пор изменили. Ничего не отправлено.",
        "The draft was changed meanwhile. Nothing was sent.",
    )
}

pub(super) fn no_test_yet(language: Language) -> &'static str {
    word(
        language,
        "Проба ещё не дошла до вас. Ничего не отправлено: дождитесь её и нажмите снова.",
        "The test has not reached you yet. Nothing was sent: wait for it and press again.",
    )
}

pub(super) fn sure(language: Language) -> &'static str {
    word(language, "Ещё ничего не отправлено. Точно?", "Nothing was sent yet. Are you sure?")
}

pub(super) fn cannot(language: Language) -> &'static str {
    word(language, "Начать нельзя. Ничего не отправлено.", "It cannot begin. Nothing was sent.")
}

/// Whom it reaches and how long it takes.
pub(super) fn preview(language: Language, head: &str, shown: &Preview) -> String {
    let audience = &shown.audience;
    let (people, skipped, time) = (audience.to_send, audience.skipped, duration(language, shown.seconds));
    let mut html = match language {
        Russian => {
            format!(
                "{head}\n\nПолучат: <b>{people}</b>\nНе получат (заблокировали или отписались): {skipped}\nВремя: около {time}"
            )
        }
        English => {
            format!(
                "{head}\n\nPeople who get it: <b>{people}</b>\nWho blocked the bot or want no news: {skipped}\nTime: about {time}"
            )
        }
    };
    if let Some(limit) = shown.limit.filter(|_| shown.over_limit) {
        html.push_str(&match language {
            Russian => format!("\n\nПредел — {limit} (broadcast.max_users): часть вместо всех не отправляем."),
            English => format!("\n\nThe limit is {limit} (broadcast.max_users): a part is never sent in place of all."),
        });
    }
    html
}

/// So many seconds, as people say it.
fn duration(language: Language, seconds: i64) -> String {
    match seconds {
        ..=90 => format!("{seconds} {}", word(language, "с", "s")),
        _ => format!("{} {}", (seconds + 59) / 60, word(language, "мин", "min")),
    }
}

/// The button that begins it.
pub(super) fn start(language: Language, people: i64, sure: bool) -> String {
    match (language, sure) {
        (Russian, false) => format!("Начать: {people}"),
        (Russian, true) => format!("Да, отправить: {people}"),
        (English, false) => format!("Start: {people}"),
        (English, true) => format!("Yes, send to {people}"),
    }
}

pub(super) fn throw_away(language: Language) -> &'static str {
    word(language, "Выбросить", "Throw away")
}

pub(super) fn begun(language: Language, people: i64) -> String {
    match language {
        Russian => format!("Рассылка идёт: {people}."),
        English => format!("The broadcast is on its way to {people}."),
    }
}

pub(super) fn progress(language: Language) -> &'static str {
    word(language, "Как идёт?", "How far is it?")
}

pub(super) fn stop(language: Language) -> &'static str {
    word(language, "Остановить", "Stop it")
}

pub(super) fn stopped(language: Language) -> &'static str {
    word(language, "Остановлено. Кто не успел получить, не получит.", "Stopped. Who has not got it gets it no more.")
}

pub(super) fn thrown_away(language: Language) -> &'static str {
    word(language, "Черновик выброшен: его никто не получил.", "The draft is thrown away: nobody got it.")
}

pub(super) fn stop_which(language: Language) -> &'static str {
    word(
        language,
        "Рассылка идёт. Остановить? Кто уже получил, у того она останется.",
        "A broadcast is on its way. Stop it? Who has got it keeps it.",
    )
}

/// The button that stops one of them. Who never was to get it is not counted.
pub(super) fn stop_one(language: Language, view: &View) -> String {
    let title: String = view.line.title.chars().take(30).collect();
    let head = format!("{} «{title}»", word(language, "Остановить", "Stop"));
    let Some(progress) = &view.progress else { return head };
    let skipped = progress.states.get("skipped").copied().unwrap_or_default();
    let of = word(language, "из", "of");
    format!("{head}: {} {of} {}", progress.done - skipped, progress.total - skipped)
}

/// Where it stands.
pub(super) fn stands(language: Language, view: &View) -> String {
    let state = match view.line.state {
        State::Draft => word(language, "черновик", "a draft"),
        State::Scheduled => word(language, "ждёт своего времени", "waits for its time"),
        State::Starting => word(language, "собирает получателей", "its audience is being written down"),
        State::Running => word(language, "идёт", "on its way"),
        State::Paused => word(language, "стоит", "paused"),
        State::Finished => word(language, "закончена", "finished"),
        State::Cancelled => word(language, "остановлена", "called off"),
    };
    let mut html = format!("{}: <b>{state}</b>", html_escape(&view.line.title));
    if let Some(reason) = &view.line.reason {
        html.push_str(&format!(" ({})", html_escape(reason)));
    }
    let Some(progress) = &view.progress else { return html };
    let (done, total) = (progress.done, progress.total);
    let states: Vec<String> = progress
        .states
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{state}: {count}"))
        .collect();
    let head = word(language, "Готово", "Done");
    html.push_str(&format!("\n{head}: {done} / {total}\n{}", states.join("\n")));
    if let Some(seconds) = progress.seconds_left {
        let left = word(language, "Осталось около", "Left: about");
        html.push_str(&format!("\n{left} {}", duration(language, seconds)));
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_as_people_say_it() {
        assert_eq!(duration(English, 0), "0 s");
        assert_eq!(duration(English, 90), "90 s");
        assert_eq!(duration(Russian, 91), "2 мин");
    }

    #[test]
    fn an_unknown_provider_is_shown_as_it_is() {
        assert_eq!(provider("yookassa"), "YooKassa");
        assert_eq!(provider("<new>"), "&lt;new&gt;");
    }
}
