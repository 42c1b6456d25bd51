//! What people tell the bot, on its way in: asked for by long polling, or posted by Telegram.
//!
//! Either way an update is a row with a job before it counts as received: the offset moves, and the webhook is answered, only
//! after the commit. What comes again is the same row. A press is answered at once from here, outside of any queue, because
//! its person waits; what it does is the job's business. Whoever is about to pay with Stars is answered from here, too, before
//! anything is written: Telegram waits ten seconds for that, also while the database is slow.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use semel_kernel::clock::{Stopwatch, Time};
use semel_kernel::leases::{self, Sole};
use semel_kernel::outbound::{Call, Manner};
use semel_kernel::store::{Engine, StoreError};
use semel_shop::bot::{self, Asked, Came, PressCame, host_key};
use semel_shop::messages::Language;
use semel_shop::{Error, Shop, alerts, messages, stars};
use semel_telegram::{Bot, Checkout, Outcome, Request, Update, What};

use super::store_error;
use crate::settings::{Settings, Updates};

/// What the lease is called, before the bot's id: Telegram cuts off whoever asks while another one does.
const LEASE: &str = "updates";
/// How long a dead poller is waited for.
const TERM: Duration = Duration::from_secs(10);
/// How long Telegram holds a question open while nothing comes.
const HOLD_S: u32 = 25;
/// The waits after a poll that went wrong, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// No silence that Telegram asks for lasts longer, in seconds.
const LONGEST_SILENCE: u64 = 3600;
/// Without an update for a week Telegram goes on with any number, perhaps a lower one: before that ours is forgotten.
const NUMBERS_HOLD: Duration = Duration::from_secs(6 * 24 * 3600);
/// How long we look whether somebody may pay. With the call that says so it stays below the ten seconds of Telegram's patience.
const CHECKOUT_LOOK: Duration = Duration::from_secs(3);
const CHECKOUT_CALL: Duration = Duration::from_secs(5);
const CHECKOUT_TRY: Duration = Duration::from_millis(2_500);
/// Between looks at a webhook that is set.
const WEBHOOK_LOOK: Duration = Duration::from_secs(3600);
/// So often in a row somebody else gets the updates before the owner is told: once or twice it is our own copy that just ends.
const RIVAL: u32 = 3;
const RIVAL_ADVICE: &str = "If another program uses its token, stop that one or set SEMEL_TELEGRAM_UPDATES=off here; until then we ask less and less often";
const DAY_MS: i64 = 86_400_000;
/// Who pressed waits no longer for a word than this, whatever the database does. It usually takes a few milliseconds, and then
/// the word can say whether the button was pressed before.
const AT_ONCE: Duration = Duration::from_millis(400);

/// The door for Telegram's own webhook: its path and its secret are made from the token, so every copy knows both and the
/// settings hold neither.
#[derive(Clone)]
pub struct TelegramDoor {
    /// The bot's id.
    pub bot: String,
    /// The last part of the path.
    pub path: String,
    /// What Telegram says in `X-Telegram-Bot-Api-Secret-Token`.
    pub secret: String,
}

impl TelegramDoor {
    /// The door of these settings; none unless updates come by webhook.
    pub fn of(settings: &Settings) -> Option<TelegramDoor> {
        let token = settings.telegram.bot_token.as_ref().filter(|_| settings.telegram.updates == Updates::Webhook)?;
        let made = |what: &str| hex::encode(Sha256::digest(format!("semel {what} {}", token.expose())));
        let bot = token.expose().split(':').next().unwrap_or_default().to_owned();
        Some(TelegramDoor { bot, path: made("webhook path")[..32].to_owned(), secret: made("webhook secret") })
    }
}

/// Who takes the updates of this shop's bot.
pub struct Receiver {
    shop: Shop,
    bot: Bot,
    /// The webhook's address with its secret; without one the bot asks.
    webhook: Option<(String, String)>,
    name: String,
    owner: String,
    term: Duration,
}

impl Receiver {
    /// The receiver of these settings; none where there is no bot or its updates go elsewhere.
    pub fn of(settings: &Settings, shop: &Shop, owner: &str) -> Option<Receiver> {
        let bot = shop.bot.clone()?;
        let webhook = match settings.telegram.updates {
            Updates::Off => return None,
            Updates::Polling => None,
            Updates::Webhook => {
                let door = TelegramDoor::of(settings)?;
                let base = shop.rules.public_url.clone()?;
                Some((format!("{base}/telegram/webhook/{}", door.path), door.secret))
            }
        };
        let name = format!("{LEASE}:{}", bot.id());
        let (shop, owner) = (shop.clone(), owner.to_owned());
        Some(Receiver { shop, bot, webhook, name, owner, term: TERM.min(settings.job_lease) })
    }

    /// Receives until `stop`: of several copies one at a time. An error ends it: run it under a supervisor.
    pub async fn serve(self: Arc<Self>, stop: CancellationToken) -> Result<(), StoreError> {
        if self.shop.store.engine() == Engine::Sqlite {
            return self.work(true, stop).await;
        }
        leases::serve(&self.shop.store, &self.name, &self.owner, self.term, &*self, stop).await
    }

    async fn poll(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut poller = Poller::new(&self.shop, &self.bot);
        while !stop.is_cancelled() {
            let wait = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                wait = poller.ask(HOLD_S) => wait,
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
        Ok(())
    }

    async fn keep_webhook(&self, url: &str, secret: &str, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let is_set = tokio::select! {
                () = stop.cancelled() => return,
                is_set = begin(&self.shop, &self.bot, self.bot.set_webhook(url, secret)) => is_set,
            };
            let wait = if is_set { WEBHOOK_LOOK } else { pause };
            pause = if is_set { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

impl Sole for Receiver {
    /// Nothing to do: who asks without the right is cut off by Telegram, and takes nothing twice.
    fn holds(&self, _until: Time) {}

    async fn work(&self, _clean: bool, stop: CancellationToken) -> Result<(), StoreError> {
        match &self.webhook {
            None => self.poll(&stop).await,
            Some((url, secret)) => {
                self.keep_webhook(url, secret, &stop).await;
                Ok(())
            }
        }
    }
}

/// Who asks for updates, one question after the other.
pub struct Poller {
    shop: Shop,
    bot: Bot,
    offset: Option<i64>,
    since_last: Stopwatch,
    /// The next wait after something went wrong.
    pause: Duration,
    /// Whether Telegram knows that we ask.
    is_ready: bool,
    /// How often in a row somebody else got the updates.
    conflicts: u32,
}

impl Poller {
    /// Nothing was asked yet.
    pub fn new(shop: &Shop, bot: &Bot) -> Poller {
        Poller {
            shop: shop.clone(),
            bot: bot.clone(),
            offset: None,
            since_last: Stopwatch::start(),
            pause: FIRST_PAUSE,
            is_ready: false,
            conflicts: 0,
        }
    }

    /// Asks once, waits up to `hold_s` seconds for something to come, and makes it durable. Answers how long to wait before the
    /// next question: not at all while things go well, and longer each time while somebody else gets the updates.
    pub async fn ask(&mut self, hold_s: u32) -> Duration {
        if !self.is_ready {
            self.is_ready = begin(&self.shop, &self.bot, self.bot.delete_webhook()).await;
        }
        if self.since_last.elapsed() > NUMBERS_HOLD {
            (self.offset, self.since_last) = (None, Stopwatch::start());
        }
        let question = Stopwatch::start();
        match poll_once(&self.shop, &self.bot, self.offset, hold_s).await {
            Ok(Polled { next, came }) => {
                if next.is_some() {
                    (self.offset, self.since_last) = (next, Stopwatch::start());
                }
                (self.pause, self.conflicts) = (FIRST_PAUSE, 0);
                answer_soon(&self.shop, &self.bot, came.presses);
                // An own Bot API server may hold no question open: then we wait in its place.
                if next.is_some() || question.elapsed() > FIRST_PAUSE { Duration::ZERO } else { FIRST_PAUSE }
            }
            Err(Trouble::Asked(seconds)) => {
                self.longer();
                Duration::from_secs(seconds.min(LONGEST_SILENCE))
            }
            Err(Trouble::Conflict(text)) => {
                self.is_ready = false;
                self.conflicts += 1;
                tracing::warn!("Telegram gives the updates of this bot to somebody else: {text}. {RIVAL_ADVICE}");
                if self.conflicts >= RIVAL {
                    self.tell_of_rival(&text).await;
                }
                self.longer()
            }
            Err(Trouble::Token(text)) => {
                tracing::error!("Telegram does not know the bot's token: {text}. Copy it again from BotFather");
                self.longer();
                LONGEST_PAUSE
            }
            Err(Trouble::Passing(text)) => {
                tracing::warn!(error = text, "could not take the bot's updates; trying again");
                self.longer()
            }
        }
    }

    /// The wait after something went wrong; the next one is longer.
    fn longer(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.shop.chance.jitter(pause)
    }

    /// Tells the owner, once a day, that somebody else has the bot: customers get no answer from here until that ends.
    async fn tell_of_rival(&self, text: &str) {
        let day = self.shop.now().millis().div_euclid(DAY_MS);
        let key = format!("updates:rival:{}:{day}", self.bot.id());
        let sentence = format!(
            "Another program takes what customers write to this bot, so they get no answer here: {text}. {RIVAL_ADVICE}"
        );
        let told =
            self.shop.write("bot.rival", move |tx, shop| alerts::flows::raise(tx, shop, key.clone(), sentence.clone()));
        if let Err(error) = told.await {
            tracing::error!(%error, "could not write the alert about another program with this bot");
        }
    }
}

/// Chooses the way, and tells Telegram the menu and us the bot's name. The menu and the name can wait for another time.
async fn begin(shop: &Shop, bot: &Bot, way: Request) -> bool {
    let is_chosen = do_it(shop, bot, "telegram.way", way).await;
    for language in [Language::Russian, Language::English] {
        let code = (language == Language::Russian).then_some("ru");
        let menu = bot::commands(language, shop.rules.referral.0 > 0);
        do_it(shop, bot, "telegram.menu", bot.set_commands(&menu, code)).await;
    }
    if let Err(error) = learn_name(shop, bot).await {
        tracing::warn!(%error, "could not learn the bot's name; links for friends do without it until the next start");
    }
    is_chosen
}

async fn do_it(shop: &Shop, bot: &Bot, label: &'static str, request: Request) -> bool {
    let mut call = Call::new(label, host_key(bot), Manner::Convergent);
    call.own_pauses = true;
    match shop.telegram.call(call, request).await.map(|response| bot.read::<Value>(&response)) {
        Ok(Outcome::Ok(_)) => true,
        Ok(refused) => {
            obey(shop, &refused).await;
            tracing::warn!(label, ?refused, "Telegram did not do it");
            false
        }
        Err(error) => {
            tracing::warn!(label, %error, "Telegram did not do it");
            false
        }
    }
}

/// A 429 to a call that belongs to no chat means the bot: its messages wait, too. So do these calls keep their pauses themselves:
/// one that is repeated after its pause would tell of it when it is over.
async fn obey<T>(shop: &Shop, outcome: &Outcome<T>) {
    let asked = match outcome {
        Outcome::RetryAfter { seconds } => Duration::from_secs(u64::try_from(*seconds).unwrap_or(1)),
        _ => return,
    };
    messages::heard(shop, asked).await;
}

async fn learn_name(shop: &Shop, bot: &Bot) -> Result<(), Error> {
    let mut call = Call::new("telegram.me", host_key(bot), Manner::Read);
    call.own_pauses = true;
    let answer = shop.telegram.call(call, bot.get_me()).await;
    let Ok(response) = answer else { return Ok(()) };
    let told = bot.read::<semel_telegram::Me>(&response);
    obey(shop, &told).await;
    if let Outcome::Ok(semel_telegram::Me { username: Some(name), .. }) = told {
        let of = bot.id().to_owned();
        shop.write("bot.name", move |tx, _| Ok(bot::flows::named(tx, &of, &name)?)).await?;
    }
    Ok(())
}

/// What a poll brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// What to ask for next, if anything came. Everything below is safe here.
    pub next: Option<i64>,
    /// What came of it.
    pub came: Came,
}

/// Why a poll brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Telegram asks for so many seconds of silence.
    #[error("Telegram asks for {0} s of silence")]
    Asked(u64),
    /// Somebody else asks, or a webhook is set.
    #[error("{0}")]
    Conflict(String),
    /// Telegram does not know the token.
    #[error("{0}")]
    Token(String),
    /// Telegram or our database was not there.
    #[error("{0}")]
    Passing(String),
}

/// Asks once for updates from `offset` on, waits up to `hold_s` seconds for the first, and makes them durable.
///
/// # Errors
/// [`Trouble`]; then everything that was not made durable comes again.
pub async fn poll_once(shop: &Shop, bot: &Bot, offset: Option<i64>, hold_s: u32) -> Result<Polled, Trouble> {
    let mut call = Call::new("telegram.updates", poll_key(bot), Manner::Read);
    call.attempt_timeout = Duration::from_secs(u64::from(hold_s) + 10);
    call.deadline = call.attempt_timeout + Duration::from_secs(5);
    call.own_pauses = true;
    let response = shop.telegram.call(call, bot.get_updates(offset, hold_s)).await;
    let response = response.map_err(|error| Trouble::Passing(error.to_string()))?;
    let told = bot.updates(&response);
    obey(shop, &told).await;
    let batch = match told {
        Outcome::Ok(batch) => batch,
        Outcome::RetryAfter { seconds } => return Err(Trouble::Asked(u64::try_from(seconds).unwrap_or(1))),
        Outcome::Conflict { text } => return Err(Trouble::Conflict(text)),
        Outcome::BadToken { text } => return Err(Trouble::Token(text)),
        Outcome::ChatGone { text, .. }
        | Outcome::BadPayload { text }
        | Outcome::Benign { text }
        | Outcome::Unclear { text, .. } => return Err(Trouble::Passing(text)),
        Outcome::Migrated { to } => return Err(Trouble::Passing(format!("a chat moved to {to}"))),
    };
    answer_checkouts(shop, bot, &batch.updates);
    let next = batch.next_offset();
    let came = take_in(shop, bot.id(), batch.updates).await;
    let came = came.map_err(|error| Trouble::Passing(store_error(error).to_string()))?;
    Ok(Polled { next, came })
}

/// Makes updates durable, each once. Who pressed gets a word at once whatever the database does, and who asked for the menu gets
/// one that needs no database when it takes too long; the presses in the answer are those who still wait for a word.
///
/// # Errors
/// As [`bot::flows::receive`]: then none of them counts as received.
pub async fn take_in(shop: &Shop, of: &str, updates: Vec<(i64, Value)>) -> Result<Came, Error> {
    let waiting = bot::waiting(&updates);
    let mut stored = pin!(bot::flows::receive(shop, of, updates));
    match timeout(AT_ONCE, stored.as_mut()).await {
        Ok(Ok(came)) => return Ok(came),
        Ok(Err(error)) => {
            tell_presses(shop, waiting.presses);
            show_menus(shop, waiting.menus);
            return Err(error);
        }
        Err(_) => tell_presses(shop, waiting.presses),
    }
    let stored = match timeout(bot::SLOW - AT_ONCE, stored.as_mut()).await {
        Ok(Ok(came)) => Ok(came),
        Ok(Err(error)) => {
            show_menus(shop, waiting.menus);
            Err(error)
        }
        Err(_) => {
            show_menus(shop, waiting.menus);
            stored.await
        }
    };
    stored.map(|came| Came { presses: Vec::new(), ..came })
}

fn tell_presses(shop: &Shop, presses: Vec<PressCame>) {
    if let Some(bot) = &shop.bot {
        answer_soon(shop, bot, presses);
    }
}

/// Ends the waiting of everybody who pressed, each in a task of their own: nobody waits for a slow answer to somebody else.
pub fn answer_soon(shop: &Shop, bot: &Bot, presses: Vec<PressCame>) {
    for press in presses {
        let (shop, bot) = (shop.clone(), bot.clone());
        tokio::spawn(async move { answer(&shop, &bot, &[press]).await });
    }
}

fn show_menus(shop: &Shop, menus: Vec<Asked>) {
    if let Some(bot) = shop.bot.clone().filter(|_| !menus.is_empty()) {
        let shop = shop.clone();
        tokio::spawn(async move {
            for asked in menus {
                bot::show_still(&shop, &bot, asked).await;
            }
        });
    }
}

/// Ends the waiting of everybody who pressed, one after the other. Whoever cannot be told waits a little longer, and that is all.
pub async fn answer(shop: &Shop, bot: &Bot, presses: &[PressCame]) {
    for press in presses {
        let mut call = Call::new("telegram.press", host_key(bot), Manner::Convergent);
        call.deadline = Duration::from_secs(10);
        call.attempt_timeout = Duration::from_secs(5);
        call.own_pauses = true;
        let request = bot.answer_callback(&press.query, press.text);
        match shop.telegram.call(call, request).await.map(|response| bot.read::<bool>(&response)) {
            Ok(Outcome::Ok(_) | Outcome::Benign { .. }) => {}
            // The others would be refused, too, and each refusal makes the silence longer.
            Ok(refused @ Outcome::RetryAfter { .. }) => return obey(shop, &refused).await,
            Ok(refused) => tracing::debug!(?refused, "a press was not answered"),
            Err(error) => tracing::debug!(%error, "a press was not answered"),
        }
    }
}

/// Answers everybody in `updates` who is about to pay, each in a task of their own, and waits for none: not for the database that makes
/// the updates durable, nor for each other. A query that comes again is answered again, which changes nothing; another one for the same
/// invoice is told that it is being paid.
pub fn answer_checkouts(shop: &Shop, bot: &Bot, updates: &[(i64, Value)]) {
    for (_, update) in updates {
        let Ok(Update { what: What::Checkout(asked), .. }) = Update::read(update) else { continue };
        let (shop, bot) = (shop.clone(), bot.clone());
        tokio::spawn(async move { answer_checkout(&shop, &bot, &asked, CHECKOUT_LOOK).await });
    }
}

/// Says whether somebody may pay: after a look of at most `look`, and no when that did not tell. Whoever cannot be answered is not
/// charged by Telegram, and that is all.
pub async fn answer_checkout(shop: &Shop, bot: &Bot, asked: &Checkout, look: Duration) {
    let refusal = stars::may_pay(shop, bot.id(), asked, look).await.err();
    let mut call = Call::new("telegram.checkout", checkout_key(bot), Manner::Convergent);
    // A silence that one call was asked for must not keep others from paying.
    call.own_pauses = true;
    call.deadline = CHECKOUT_CALL;
    call.attempt_timeout = CHECKOUT_TRY;
    let request = bot.answer_pre_checkout(&asked.query, refusal);
    match shop.telegram.call(call, request).await.map(|response| bot.read::<bool>(&response)) {
        Ok(Outcome::Ok(_) | Outcome::Benign { .. }) => {}
        Ok(refused) => {
            obey(shop, &refused).await;
            tracing::warn!(?refused, "Telegram did not take the answer about a payment");
        }
        Err(error) => tracing::warn!(%error, "Telegram could not be told about a payment"),
    }
}

/// A key of its own: whoever presses so much that Telegram asks for silence keeps nobody from paying.
fn checkout_key(bot: &Bot) -> String {
    format!("telegram-checkout:{}", bot.id())
}

/// A key of its own, so that a question that is held open says nothing about the others.
fn poll_key(bot: &Bot) -> String {
    format!("telegram-updates:{}", bot.id())
}
