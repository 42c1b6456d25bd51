//! Telegram Stars: the rail behind a bot's own token.
//!
//! It differs from the other rails in three ways. An invoice is a message of the bot, so nothing is opened by a call. Its money is
//! told of in an update and not by a webhook of its own, and that update is no more than a hint here, too. And no call asks for one
//! payment: there is only the bot's list of transactions in the order of their time, read by place ([`Stars::transactions`]), from
//! which [`seen`] makes what the other rails answer for one payment. Stars go back whole, by a call that may be repeated.

mod api;

pub(crate) use api::no;
pub use api::{PAGE, StarMove, StarPage, StarWay, asked_silence, seen, seen_all};

use crate::request::is_plain;
use crate::{BaseUrl, ConfigError, Provider, Secret};

/// One bot that takes Stars.
#[derive(Debug, Clone)]
pub struct Stars {
    /// The bot's Telegram id, the account of this rail. Not a secret.
    pub bot_id: String,
    /// The bot's token. It stands in the path of every call: never log a request of this rail.
    pub token: Secret,
    /// The Bot API server.
    pub api_url: BaseUrl,
}

impl Stars {
    /// The account of the bot with this token.
    ///
    /// # Errors
    /// [`ConfigError`] when the token or the address has another form than it must.
    pub fn new(token: &str, api_url: &str) -> Result<Stars, ConfigError> {
        let (provider, name) = (Provider::Stars, "bot_token");
        if token.is_empty() {
            return Err(ConfigError::Empty { provider, name });
        }
        let sound = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        match token.split_once(':') {
            // It becomes a part of a path, so nothing that could end one passes.
            Some((id, key))
                if !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) && !key.is_empty() && sound(key) =>
            {
                Ok(Stars { bot_id: id.to_string(), token: Secret::new(token), api_url: BaseUrl::parse(api_url)? })
            }
            _ => Err(ConfigError::NotPlain { provider, name }),
        }
    }
}

/// Whether a text may be the id of a charge: Telegram publishes no form, so visible ASCII of bounded length.
fn is_charge(text: &str) -> bool {
    text.len() <= 255 && is_plain(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_could_change_the_path_is_no_token() {
        let bot = Stars::new("123456789:AAE-test_token_for_offline_use", "https://api.telegram.org").unwrap();
        assert_eq!(bot.bot_id, "123456789");
        assert!(!format!("{bot:?}").contains("AAE-test"));
        for wrong in ["", "123456789", ":key", "12a:key", "1:a/b", "1:a b", "1:a?b", "1:"] {
            assert!(Stars::new(wrong, "https://api.telegram.org").is_err(), "{wrong:?}");
        }
    }
}
