//! Parsers of foreign bytes, fed with what nobody would send and some do.
//!
//! A target is one parser behind its public door, with the rules that must hold whatever comes in: it never panics, it is
//! quick, what it takes it would take again, money is read from its own characters, a signature belongs to what was signed.
//! Inputs grow from kept ones (`corpora/<target>/`) by seeded changes. A file whose name begins with `accept-` must be taken
//! and one with `reject-` refused; an input that broke a rule is kept as `found-<hash>` and is replayed from then on.
//!
//! Each target is an ordinary test with a budget of a third of a second, its seed from `PROVE_SEED`; [`run`] gives each of
//! them minutes.

mod answers;
mod bodies;
mod doors;
mod mutate;
mod notices;
mod schedules;
mod settings;
mod talk;
mod telegram;
mod vpn;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use semel_kernel::clock::Stopwatch;
use semel_prove::report::{Figure, Options};

use self::mutate::Mutator;

/// What became of an input, in words that tell a new behaviour from a known one (never with values out of the input);
/// or the sentence that says which rule it broke.
type Verdict = Result<String, String>;

/// How a verdict begins when the input was taken.
const TAKEN: &str = "taken";

/// What stands in the sentence about an input that took too long.
const TOOK: &str = " bytes took ";

/// A target that keeps something between inputs.
trait Subject {
    /// Feeds one input.
    fn feed(&mut self, input: &[u8]) -> Verdict;

    /// Looks at what is left after the last one.
    fn end(&mut self) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Door {
    /// A function: bytes in, verdict out.
    Plain(fn(&[u8]) -> Verdict),
    /// Something with a state: a database, a whole shop.
    Living(fn() -> Box<dyn Subject>),
}

/// A parser behind its door.
struct Target {
    name: &'static str,
    door: Door,
    words: &'static [&'static str],
}

struct Function(fn(&[u8]) -> Verdict);

impl Subject for Function {
    fn feed(&mut self, input: &[u8]) -> Verdict {
        (self.0)(input)
    }
}

/// An unoptimised build takes longer for the same work.
const SLOWNESS: u32 = if cfg!(debug_assertions) { 10 } else { 1 };

impl Target {
    fn start(&self) -> Box<dyn Subject> {
        match self.door {
            Door::Plain(function) => Box::new(Function(function)),
            Door::Living(start) => start(),
        }
    }

    /// How long an input may take.
    fn limit(&self) -> Duration {
        match self.door {
            Door::Plain(_) => Duration::from_millis(50) * SLOWNESS,
            Door::Living(_) => Duration::from_secs(5) * SLOWNESS,
        }
    }

    /// How long an input may be.
    fn longest(&self) -> usize {
        match self.door {
            Door::Plain(_) => 16 * 1024,
            Door::Living(_) => 4 * 1024,
        }
    }
}

macro_rules! targets {
    ($($name:ident = $door:expr, $words:expr;)*) => {
        /// Every target, by the name of its folder of kept inputs.
        const TARGETS: &[Target] = &[$(Target { name: stringify!($name), door: $door, words: $words }),*];

        #[cfg(test)]
        mod tests {
            $(
                #[test]
                fn $name() {
                    super::stands(stringify!($name));
                }
            )*
        }
    };
}

targets! {
    yookassa_notice = Door::Plain(notices::yookassa), notices::WORDS;
    heleket_notice = Door::Living(notices::heleket), notices::WORDS;
    heleket_signed = Door::Plain(notices::heleket_signed), notices::WORDS;
    heleket_php = Door::Plain(notices::heleket_php), notices::WORDS;
    crystalpay_notice = Door::Plain(notices::crystalpay), notices::WORDS;
    crystalpay_signed = Door::Plain(notices::crystalpay_signed), notices::WORDS;
    provider_networks = Door::Plain(notices::networks), notices::ADDRESSES;
    yookassa_answers = Door::Plain(answers::yookassa), answers::WORDS;
    heleket_answers = Door::Plain(answers::heleket), answers::WORDS;
    crystalpay_answers = Door::Plain(answers::crystalpay), answers::WORDS;
    provider_requests = Door::Plain(answers::requests), answers::WORDS;
    retry_after = Door::Plain(answers::retry_after), answers::WORDS;
    bot_answers = Door::Plain(telegram::answers), telegram::WORDS;
    bot_requests = Door::Plain(telegram::requests), telegram::WORDS;
    telegram_text = Door::Plain(telegram::text), telegram::WORDS;
    amount_text = Door::Plain(words::amount), words::WORDS;
    ids_and_words = Door::Plain(words::ids), words::WORDS;
    addresses = Door::Plain(words::addresses), words::WORDS;
    forwarded_for = Door::Plain(words::forwarded_for), notices::ADDRESSES;
    signature_out = Door::Plain(words::signature_out), words::WORDS;
    settings_file = Door::Living(settings::file), settings::WORDS;
    settings_environment = Door::Plain(settings::environment), settings::WORDS;
    settings_values = Door::Plain(settings::values), settings::WORDS;
    strict_order = Door::Plain(bodies::order), bodies::WORDS;
    strict_refund = Door::Plain(bodies::refund), bodies::WORDS;
    strict_amount = Door::Plain(bodies::amount), bodies::WORDS;
    problem_output = Door::Plain(bodies::problem), bodies::WORDS;
    stock_lines = Door::Plain(bodies::stock), bodies::WORDS;
    cron_expressions = Door::Living(schedules::cron), schedules::WORDS;
    api_requests = Door::Living(doors::api), doors::WORDS;
    idempotency_keys = Door::Living(doors::keys), doors::WORDS;
    stock_import = Door::Living(doors::stock), doors::WORDS;
    webhooks = Door::Living(doors::webhooks), doors::WORDS;
    bot_updates = Door::Plain(talk::update), talk::WORDS;
    notice_texts = Door::Plain(talk::notice), talk::WORDS;
    message_markup = Door::Plain(talk::markup), talk::WORDS;
    segment_rules = Door::Plain(talk::rule), talk::WORDS;
    telegram_webhook = Door::Living(talk::webhook), talk::WORDS;
    callback_data = Door::Living(talk::data), talk::WORDS;
    wg_adoptions = Door::Plain(vpn::adopted), vpn::WORDS;
    wg_conf = Door::Plain(vpn::conf), vpn::WORDS;
    wg_dump = Door::Plain(vpn::shown), vpn::WORDS;
}

/// What a round over one target came to.
struct Round {
    fed: u64,
    trouble: Option<String>,
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpora").join(target)
}

/// The kept inputs of a target with their names, in the order of the names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder(target)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Ok(bytes) = fs::read(entry.path()) {
            kept.push((name, bytes));
        }
    }
    kept.sort();
    kept
}

/// FNV-1a: names need no secrecy, only to differ.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Feeds one input; a panic and a long time are broken rules like others.
fn feed(target: &Target, subject: &mut dyn Subject, input: &[u8]) -> Verdict {
    let mut quickest = Duration::MAX;
    // A busy machine makes anything slow once, so what was slow is fed again.
    for _ in 0..3 {
        let watch = Stopwatch::start();
        let verdict = match catch_unwind(AssertUnwindSafe(|| subject.feed(input))) {
            Ok(verdict) => verdict?,
            Err(panic) => {
                let told = panic.downcast_ref::<String>().map(String::as_str);
                let told = told.or_else(|| panic.downcast_ref::<&'static str>().copied());
                return Err(format!("a panic: {}", told.unwrap_or("without words")));
            }
        };
        quickest = quickest.min(watch.elapsed());
        if quickest <= target.limit() {
            return Ok(verdict);
        }
    }
    Err(format!("{}{TOOK}{} ms", input.len(), quickest.as_millis()))
}

/// Replays what was kept and feeds new inputs until `budget` is used up or a rule is broken.
fn fuzz(target: &Target, seed: u64, budget: Duration) -> Round {
    let watch = Stopwatch::start();
    let mut subject = target.start();
    let mut round = Round { fed: 0, trouble: None };
    let kept = corpus(target.name);
    if kept.is_empty() {
        round.trouble = Some(format!("{} has no kept inputs", target.name));
    }
    let mut known = BTreeSet::new();
    for (name, input) in &kept {
        round.fed += 1;
        let told = feed(target, subject.as_mut(), input).and_then(|verdict| as_named(name, verdict));
        match told {
            Ok(verdict) => {
                known.insert(verdict);
            }
            Err(broken) => {
                round.trouble = Some(format!("{}: {broken} (kept input {name})", target.name));
                break;
            }
        }
    }
    let mut pool: Vec<Vec<u8>> = kept.into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(seed ^ hash(target.name.as_bytes()), target.words);
    while round.trouble.is_none() && watch.elapsed() < budget {
        let input = mutator.next(&pool, target.longest());
        round.fed += 1;
        match feed(target, subject.as_mut(), &input) {
            // What behaves in a new way is a good beginning for further changes.
            Ok(verdict) => {
                if pool.len() < 2_000 && known.insert(verdict) {
                    pool.push(input);
                }
            }
            Err(broken) => {
                let input = shrink(target, subject.as_mut(), input);
                round.trouble = Some(format!("{}: {broken} (seed {seed}; {})", target.name, keep(target, &input)));
            }
        }
    }
    let end = catch_unwind(AssertUnwindSafe(|| subject.end()));
    let end = end.unwrap_or_else(|_| Err("the end is not sound, see the panic above".to_owned()));
    if round.trouble.is_none()
        && let Err(broken) = end
    {
        round.trouble = Some(format!("{}: {broken} (seed {seed}, after {} inputs)", target.name, round.fed));
    }
    round
}

/// Whether a kept input got what its name says.
fn as_named(name: &str, verdict: String) -> Verdict {
    let taken = verdict.starts_with(TAKEN);
    if name.starts_with("accept-") && !taken {
        return Err(format!("it must be taken, and got: {verdict}"));
    }
    if name.starts_with("reject-") && taken {
        return Err(format!("it must be refused, and got: {verdict}"));
    }
    Ok(verdict)
}

/// The same trouble with fewer bytes, as far as a few tries find it.
fn shrink(target: &Target, subject: &mut dyn Subject, mut input: Vec<u8>) -> Vec<u8> {
    let mut tries = 120;
    let mut size = input.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from + size <= input.len() && tries > 0 {
            tries -= 1;
            let mut shorter = input.clone();
            shorter.drain(from..from + size);
            if feed(target, subject, &shorter).is_err() {
                input = shorter;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
    input
}

/// Keeps an input that broke a rule, and says where.
fn keep(target: &Target, input: &[u8]) -> String {
    let name = format!("found-{:016x}", hash(input));
    let folder = folder(target.name);
    match fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(&name), input)) {
        Ok(()) => format!("kept as corpora/{}/{name}", target.name),
        Err(error) => format!("not kept ({error}): {}", String::from_utf8_lossy(input)),
    }
}

/// One target as a test.
#[cfg(test)]
fn stands(name: &str) {
    let seed = std::env::var("PROVE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_301);
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let round = fuzz(target, seed, Duration::from_millis(300));
    assert!(round.trouble.is_none(), "{}", round.trouble.unwrap_or_default());
}

/// The campaign: every target for its part of the time, several at once.
pub fn run(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let asked: Vec<&Target> = TARGETS.iter().filter(|target| options.wants(&format!("fuzz {}", target.name))).collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let at_once = options.at_once.clamp(1, asked.len());
    let budget = match options.small {
        true => Duration::from_secs(1),
        false => {
            let all = options.minutes * 60 * u64::try_from(at_once)? / u64::try_from(asked.len())?;
            Duration::from_secs(all.clamp(5, 600))
        }
    };
    let next = AtomicUsize::new(0);
    let rounds: Mutex<Vec<Round>> = Mutex::default();
    std::thread::scope(|threads| {
        for _ in 0..at_once {
            threads.spawn(|| {
                while let Some(target) = asked.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let round = catch_unwind(AssertUnwindSafe(|| fuzz(target, options.seed, budget)));
                    let round = round.unwrap_or_else(|_| Round {
                        fed: 0,
                        trouble: Some(format!("{}: it cannot be tried, see the panic above", target.name)),
                    });
                    if let Ok(mut rounds) = rounds.lock() {
                        rounds.push(round);
                    }
                }
            });
        }
    });
    let rounds = rounds.into_inner().unwrap_or_default();
    let fed: u64 = rounds.iter().map(|round| round.fed).sum();
    let troubles = rounds.into_iter().filter_map(|round| round.trouble);
    let (slow, broken): (Vec<String>, Vec<String>) = troubles.partition(|trouble| trouble.contains(TOOK));
    let of = u64::try_from(asked.len())?;
    let well = |troubles: &[String]| of.saturating_sub(troubles.len() as u64);
    let mut figures = vec![Figure::told("fuzz: inputs", fed.to_string())];
    if options.only.is_none() {
        figures.insert(0, Figure::at_least("fuzz: targets", of, 20));
    }
    figures.push(Figure::all_of("fuzz: targets whose rules held", well(&broken), of, broken));
    figures.push(Figure::all_of("fuzz: targets that were quick with every input", well(&slow), of, slow).timed());
    Ok(figures)
}
