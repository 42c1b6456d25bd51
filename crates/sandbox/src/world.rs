//! The world: everything the fakes know, shared by the servers, the handle and the tasks.
//!
//! One lock per subject, never held across an await. Where two are held, the order is keys, payments or town, truth.

use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::faults::Rules;
use crate::hooks::{self, Sender};
use crate::options::Options;
use crate::outbox::{Event, HookId, Notice, Outbox};
use crate::payments::{Move, PayError, Payment, PaymentView, Provider, Register};
use crate::telegram::Town;
use crate::truth::{GtPay, Log};
use crate::yookassa::Keys;
use crate::{amount, clock, crystalpay, heleket, yookassa};

/// The shared world.
#[derive(Clone)]
pub(crate) struct World(Arc<Inner>);

/// What the world holds.
pub(crate) struct Inner {
    pub(crate) options: Options,
    /// Where the server listens, without a last slash.
    pub(crate) base: String,
    pub(crate) payments: Mutex<Register>,
    pub(crate) keys: Mutex<Keys>,
    pub(crate) hooks: Mutex<Outbox>,
    pub(crate) yookassa_hook_url: Mutex<Option<String>>,
    pub(crate) faults: Mutex<Rules>,
    pub(crate) town: Mutex<Town>,
    pub(crate) truth: Mutex<Log>,
    pub(crate) sender: Sender,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    runtime: Handle,
}

impl Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Locks one subject. A panic of another holder in the middle of a test is that test's own failure, not a second one here.
pub(crate) fn lock<T>(subject: &Mutex<T>) -> MutexGuard<'_, T> {
    subject.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Must be called inside a tokio runtime, whose tasks it will use.
    pub(crate) fn new(options: Options, base: String) -> io::Result<World> {
        let truth = Log::open(options.truth_file.as_deref())?;
        let inner = Inner {
            base,
            payments: Mutex::default(),
            keys: Mutex::default(),
            hooks: Mutex::default(),
            yookassa_hook_url: Mutex::new(options.yookassa_hook_url.clone()),
            faults: Mutex::default(),
            town: Mutex::new(Town::new(options.telegram_limits)),
            truth: Mutex::new(truth),
            sender: Sender::new()?,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            options,
        };
        Ok(World(Arc::new(inner)))
    }

    /// Runs a task that ends with the world.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// The address that customers see.
    pub(crate) fn public_base(&self) -> &str {
        self.options.public_url.as_deref().unwrap_or(&self.base).trim_end_matches('/')
    }

    pub(crate) fn pay_page(&self, provider: Provider, id: &str) -> String {
        format!("{}/pay/{provider}/{id}", self.public_base())
    }

    /// Writes down what the provider holds for this payment now. Call while the register is locked, so that rows stay in order.
    pub(crate) fn note_money(&self, payment: &Payment) {
        lock(&self.truth).pay(GtPay {
            provider: payment.provider.as_str().to_owned(),
            merchant: hooks::merchant(&self.options, payment.provider).to_owned(),
            provider_payment_id: payment.id.clone(),
            currency: payment.currency.clone(),
            captured: payment.captured,
            refunded: payment.refunded,
        });
    }

    /// The webhook of the state that the payment is in.
    fn event_of(&self, payment: &Payment) -> Event {
        match payment.provider {
            Provider::Yookassa => yookassa::event(payment, &self.options),
            Provider::Heleket => heleket::event(payment, self),
            Provider::CrystalPay => crystalpay::event(payment, self),
        }
    }

    /// Moves a payment: state, money, webhook.
    pub(crate) fn go(&self, provider: Provider, id: &str, how: Move) -> Result<PaymentView, PayError> {
        let now = clock::now_ms();
        let (view, event) = {
            let mut register = lock(&self.payments);
            let unknown = || PayError::Unknown { provider, id: id.to_owned() };
            let payment = register.get_mut(provider, id).ok_or_else(unknown)?;
            match provider {
                Provider::Yookassa => yookassa::go(payment, how, now)?,
                Provider::Heleket => heleket::go(payment, how, now)?,
                Provider::CrystalPay => crystalpay::go(payment, how, now)?,
            }
            payment.changed_at = now;
            self.note_money(payment);
            (payment.view(), self.event_of(payment))
        };
        self.queue(event);
        Ok(view)
    }

    /// The customer pays this much, as decimal text in the payment's currency.
    pub(crate) fn pay_amount(&self, provider: Provider, id: &str, text: &str) -> Result<PaymentView, PayError> {
        let scale = self.payment(provider, id)?.scale;
        let sum = amount::parse(text, scale).filter(|sum| *sum > 0);
        let sum = sum.ok_or_else(|| PayError::Amount(text.to_owned()))?;
        self.go(provider, id, Move::Pay(Some(sum)))
    }

    /// A copy of a payment.
    pub(crate) fn payment(&self, provider: Provider, id: &str) -> Result<Payment, PayError> {
        let found = lock(&self.payments).get(provider, id).cloned();
        found.ok_or_else(|| PayError::Unknown { provider, id: id.to_owned() })
    }

    /// The payment with the shop's own id, of whatever provider; the newest.
    pub(crate) fn by_ours(&self, ours: &str) -> Option<PaymentView> {
        let register = lock(&self.payments);
        let found = Provider::ALL.into_iter().filter_map(|provider| register.by_ours(provider, ours));
        found.max_by_key(|payment| payment.created_at).map(Payment::view)
    }

    /// The authentic event of a state that the payment is not in.
    fn lie_about(&self, provider: Provider, id: &str, state: &str) -> Result<Event, PayError> {
        let payment = self.payment(provider, id)?;
        let now = clock::now_ms();
        Ok(match provider {
            Provider::Yookassa if state.starts_with("refund") => yookassa::refund_as_if(&payment, now),
            Provider::Yookassa => self.event_of(&yookassa::as_if(&payment, state, now)),
            Provider::Heleket => self.event_of(&heleket::as_if(&payment, state, now)),
            Provider::CrystalPay => self.event_of(&crystalpay::as_if(&payment, state, now)),
        })
    }

    pub(crate) fn lie(&self, provider: Provider, id: &str, state: &str) -> Result<Vec<HookId>, PayError> {
        Ok(self.queue(self.lie_about(provider, id, state)?))
    }

    pub(crate) fn notice_of(&self, provider: Provider, id: &str, state: &str) -> Result<Notice, PayError> {
        Ok(self.notice(self.lie_about(provider, id, state)?))
    }
}
