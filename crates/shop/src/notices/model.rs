//! The kinds of notices, the values that their texts may name, and how a text becomes words.

use semel_telegram::{TEXT_LIMIT, html_escape};

use super::html;

/// A kind of notice.
#[derive(Debug)]
pub struct Kind {
    /// The word in rows and addresses.
    pub word: &'static str,
    /// What it is about, for the owner.
    pub about: &'static str,
    /// Values that a text of it may name, as `{amount}`.
    pub may: &'static [&'static str],
    /// Those of them that it has to name: without them nobody could tell one notice from its double.
    pub must: &'static [&'static str],
    /// Whether it has a text of its own here.
    pub text: bool,
    /// Whether a customer may switch it off.
    pub switch: bool,
}

const fn money(
    word: &'static str,
    about: &'static str,
    may: &'static [&'static str],
    must: &'static [&'static str],
) -> Kind {
    Kind { word, about, may, must, text: true, switch: false }
}

/// What a customer may do without.
const fn kind(word: &'static str, about: &'static str, may: &'static [&'static str]) -> Kind {
    Kind { word, about, may, must: &[], text: true, switch: true }
}

/// The switch of everything that is sent to many people at once.
pub const CAMPAIGN: &str = "campaign";
/// The switch of digests.
pub const DIGEST: &str = "digest";

/// What the bot says when it is asked: the owner's own words, and no notice that anybody could switch off.
const fn page(word: &'static str, about: &'static str) -> Kind {
    Kind { word, about, may: &[], must: &[], text: true, switch: false }
}

/// Every kind.
pub const KINDS: &[Kind] = &[
    money("balance", "money came to the balance", &["amount", "number", "why"], &["amount", "number"]),
    money("refund_balance", "a refund went to the balance", &["amount", "order"], &["amount", "order"]),
    money(
        "refund_provider",
        "a refund went to where the payment came from",
        &["amount", "order"],
        &["amount", "order"],
    ),
    Kind {
        switch: true,
        ..money("reward", "a friend's first payment was rewarded", &["amount", "order"], &["amount", "order"])
    },
    money("goods", "the goods of an order, as a text", &["goods", "order"], &["goods", "order"]),
    money("goods_file", "the words under a file, where the goods are too long for a text", &["order"], &["order"]),
    money(
        "vpn_file",
        "the words under the file of a device",
        &["device", "tunnel", "until", "order", "own_key"],
        &["device"],
    ),
    money("vpn_qr", "the words under its QR picture", &["device", "tunnel"], &[]),
    money("vpn_howto", "how to use both", &["app", "tunnel", "own_key"], &[]),
    kind("vpn_ends", "access ends soon", &["until", "left"]),
    kind("vpn_ended", "the paid time ended", &["until"]),
    money("vpn_renewed", "access was renewed", &["until"], &[]),
    money("vpn_granted", "access was opened", &["until"], &[]),
    money("vpn_extended", "the owner added time", &["until"], &[]),
    money("vpn_frozen", "access was paused", &[], &[]),
    money("vpn_unfrozen", "access goes on", &["until"], &[]),
    money("vpn_revoked", "access was closed", &[], &[]),
    kind("vpn_unconnected", "no device has connected yet", &[]),
    money("vpn_waiting", "paid, and waiting for a free place", &[], &[]),
    Kind { word: CAMPAIGN, about: "news and offers to many people", may: &[], must: &[], text: false, switch: true },
    Kind { word: DIGEST, about: "digests", may: &[], must: &[], text: false, switch: true },
    page("start", "how the bot greets whoever comes"),
    page("help", "what the bot says to /help, above its commands"),
    page("support", "what the bot says to /support alone"),
    page("terms", "what the bot says to /terms"),
    page("privacy", "what the bot says to /privacy"),
];

/// The kind of this word.
pub fn kind_of(word: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.word == word)
}

/// The longest that a value can be, for the check of a text's length.
const LONGEST_VALUE: usize = 120;

/// The longest text of a notice: what does not fit into one message follows in others.
pub const LONGEST_TEXT: usize = 4 * TEXT_LIMIT;

impl Kind {
    /// The longest text of it with its values, in UTF-16 units that a reader sees. Goods share one message with the words around
    /// them, or else come as a file.
    pub fn limit(&self) -> usize {
        if self.word == "goods" { TEXT_LIMIT / 2 } else { LONGEST_TEXT }
    }

    /// A value of it as it may come, to try a text with: the longest, or the shortest.
    fn sample(&self, name: &str, longest: bool) -> String {
        match name {
            "goods" => "<b>x</b>\n<code>x</code>\n<pre>x</pre>".to_owned(),
            "app" => "<a href=\"https://example.org\">x</a>".to_owned(),
            _ if longest => "x".repeat(LONGEST_VALUE),
            "why" | "own_key" => String::new(),
            // Nothing was ordered where access was tried or given.
            "order" if self.word == "vpn_file" => String::new(),
            _ => "x".to_owned(),
        }
    }
}

/// Refuses a text of `kind` that could not be sent whatever its values are.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check(kind: &Kind, text: &str) -> Result<(), String> {
    for name in placeholders(text) {
        if !kind.may.contains(&name) {
            let known = if kind.may.is_empty() { "none".to_owned() } else { kind.may.join("}, {") };
            return Err(format!("{{{name}}} is no value of this notice; it knows {{{known}}}"));
        }
    }
    if let Some(missing) = kind.must.iter().find(|name| !placeholders(text).any(|there| there == **name)) {
        return Err(format!("{{{missing}}} is missing: without it nobody could use this, or tell one from its double"));
    }
    for longest in [true, false] {
        let known = |name: &str| kind.may.contains(&name).then(|| kind.sample(name, longest));
        html::check(&fill(text, known), kind.limit())?;
    }
    Ok(())
}

/// `text` with each `{name}` replaced by its value, escaped. What is no placeholder of `values` stays as it stands.
pub fn render(text: &str, values: &[(&str, String)]) -> String {
    fill(text, |name| values.iter().find(|(known, _)| *known == name).map(|(_, value)| html_escape(value)))
}

/// The same with values that are HTML already: whoever gives one has escaped what is foreign in it.
pub(crate) fn fill(text: &str, value_of: impl Fn(&str) -> Option<String>) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        let value = name_at(rest).and_then(|name| Some((name, value_of(name)?)));
        match value {
            Some((name, value)) => {
                shown.push_str(&value);
                rest = &rest[name.len() + 2..];
            }
            None => {
                shown.push('{');
                rest = &rest[1..];
            }
        }
    }
    shown.push_str(rest);
    shown
}

/// The names in braces.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().filter(|(_, sign)| *sign == '{').filter_map(|(at, _)| name_at(&text[at..]))
}

/// The name of the placeholder that `text` begins with.
fn name_at(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    sound.then_some(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kinds_have_one_name_each_and_money_is_always_told() {
        let words: BTreeSet<&str> = KINDS.iter().map(|kind| kind.word).collect();
        assert_eq!(words.len(), KINDS.len());
        for word in ["balance", "refund_balance", "refund_provider", "vpn_waiting", "vpn_revoked"] {
            assert!(!kind_of(word).expect("a kind").switch, "{word}");
        }
        assert!(KINDS.iter().all(|kind| kind.must.iter().all(|name| kind.may.contains(name))));
    }

    #[test]
    fn values_are_escaped_and_nothing_in_them_is_a_placeholder() {
        let values = [("amount", "{order} <5>".to_owned()), ("order", "ord_1".to_owned())];
        assert_eq!(render("<b>{amount}</b> {order} {x} {", &values), "<b>{order} &lt;5&gt;</b> ord_1 {x} {");
    }

    #[test]
    fn a_text_is_checked_before_it_is_needed() {
        let balance = kind_of("balance").expect("a kind");
        assert_eq!(check(balance, "{why}<b>{amount}</b> ({number})"), Ok(()));
        for (wrong, told) in [
            ("{amount}", "{number} is missing"),
            ("{amount} {number} {name}", "{name} is no value"),
            ("<b>{amount} {number}", "never closed"),
            ("", "is missing"),
        ] {
            let said = check(balance, wrong).expect_err(wrong);
            assert!(said.contains(told), "{wrong}: {said}");
        }
        let long = |length: usize| format!("{{amount}} {{number}} {}", "x".repeat(length));
        assert_eq!(check(balance, &long(TEXT_LIMIT)), Ok(()), "what is too long for one message comes in two");
        assert!(check(balance, &long(LONGEST_TEXT - 100)).is_err(), "with its values it would be too long");
    }

    #[test]
    fn values_that_are_markup_stand_where_markup_may_stand() {
        let goods = kind_of("goods").expect("a kind");
        assert_eq!(check(goods, "Enjoy!\n{goods}\n<i>{order}</i>"), Ok(()));
        assert!(check(goods, "<a href=\"{goods}\">x</a> {order}").is_err());
        assert!(check(goods, &format!("{{goods}} {{order}} {}", "x".repeat(TEXT_LIMIT / 2))).is_err());
        let howto = kind_of("vpn_howto").expect("a kind");
        assert_eq!(check(howto, "Take {app}. {own_key}"), Ok(()));
        let said = check(howto, "{own_key}").expect_err("a message of nothing");
        assert!(said.contains("empty"), "{said}");
    }

    /// What the owner reads about kinds and placeholders is what the program knows.
    #[test]
    fn the_list_for_owners_is_the_list_of_the_program() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| format!("`{{{name}}}`")).collect();
            if names.is_empty() { "–".to_owned() } else { names.join(" ") }
        };
        let line = |kind: &Kind| {
            let switch = if kind.switch { "yes" } else { "no" };
            let (may, must) = (names(kind.may), names(kind.must));
            format!("| `{}` | {} | {may} | {must} | {switch} |\n", kind.word, kind.about)
        };
        let table: String = KINDS.iter().map(line).collect();
        let docs = include_str!("../../../../docs/notices.md");
        assert!(docs.contains(&table), "docs/notices.md has to hold this table:\n{table}");
        let named = |kind: &Kind| kind.may.iter().all(|name| docs.contains(&format!("- `{{{name}}}`")));
        assert!(KINDS.iter().all(named), "docs/notices.md says what each placeholder becomes");
    }
}
