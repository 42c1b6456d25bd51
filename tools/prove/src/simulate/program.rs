//! Programs of shop life: a list of deeds with the time before each, drawn from a seed.
//!
//! A deed names what it is about by a number that is resolved when it is done ("the so-and-so-many-th order that can be
//! paid"), so any part of a program is a program, and a failing one can be cut down. A feature that comes later brings an
//! arm here, one in [`super::run`] that does it, and one in [`super::model`] that says what must come of it.

use semel_sandbox::Provider;

/// How an order is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// At YooKassa.
    Yookassa,
    /// At Heleket.
    Heleket,
    /// At CrystalPay.
    CrystalPay,
    /// In Telegram Stars, to the bot.
    Stars,
    /// From the customer's balance.
    Balance,
}

impl By {
    /// The word of the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Yookassa => "yookassa",
            Self::Heleket => "heleket",
            Self::CrystalPay => "crystalpay",
            Self::Stars => "stars",
            Self::Balance => "balance",
        }
    }

    /// The provider in the box; the bot and the balance are none.
    pub fn provider(self) -> Option<Provider> {
        match self {
            Self::Yookassa => Some(Provider::Yookassa),
            Self::Heleket => Some(Provider::Heleket),
            Self::CrystalPay => Some(Provider::CrystalPay),
            Self::Stars | Self::Balance => None,
        }
    }
}

/// How much a customer pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// What is asked for.
    Exact,
    /// Less.
    Short,
    /// More.
    Surplus,
}

/// How the bot hears that somebody paid in Stars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// By an update.
    Once,
    /// By two updates.
    Twice,
    /// By none.
    Never,
}

/// What becomes of the webhooks that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// All come, in their order.
    All,
    /// Only the latest comes; the others are late.
    Last,
    /// All come, the latest first.
    Backwards,
    /// All come, and come again.
    Twice,
    /// All are lost for good.
    Lost,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// 500, and nothing happens.
    Fails,
    /// It happens, then 500.
    FailsAfter,
    /// 429 with a minute and a half of silence.
    Silence,
    /// The connection ends before anything happens.
    CutBefore,
    /// It happens, and the answer is lost.
    CutAfter,
    /// It takes five seconds more.
    Slow,
}

/// One deed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A customer, new or not, orders.
    Order { who: u8, what: u8, many: u8, by: By },
    /// The same tap twice, with one idempotency key or with two.
    Tap { who: u8, what: u8, by: By, one_key: bool },
    /// An unpaid order is to be paid in another way.
    PayOtherwise { order: u16, by: By },
    /// The customer pays at the provider, in time or late.
    Pay { order: u16, how: How },
    /// A customer presses Pay under the newest invoice in Stars.
    PayStars { order: u16, told: Told },
    /// Webhooks.
    Deliver(Hooks),
    /// A genuine-looking webhook says that a payment came; perhaps it will.
    Lie { order: u16 },
    /// Everything that is due is done.
    Jobs,
    /// Time passes.
    Wait { seconds: u16 },
    /// Units come into stock, some of them not for the first time.
    Stock { what: u8, many: u8, again: bool },
    /// The owner takes the newest units of a product off its shelf; they may come in again.
    Withdraw { what: u8, many: u8 },
    /// The owner gives money back.
    Refund { order: u16, to_provider: bool, part: bool },
    /// The owner gives money back in the provider's cabinet; the provider may not tell.
    Cabinet { order: u16, part: bool, told: bool },
    /// The customer calls an order off.
    Cancel { order: u16 },
    /// Somebody looks at an order.
    Look { order: u16 },
    /// The provider's lists are read.
    Sweep(By),
    /// The program dies with so many jobs in hand, and starts again.
    Restart { lost: u8 },
    /// The next calls of a provider go wrong.
    Fault { at: By, wrong: Wrong, times: u8 },
    /// The next calls of the Bot API go wrong.
    TelegramFault { wrong: Wrong, times: u8 },
    /// A customer blocks the bot.
    Block { who: u8 },
    /// A customer buys access for a week or a month, for the first time or again.
    Buy { who: u8, month: bool, many: u8, by: By },
    /// A person tries access.
    Trial { who: u8 },
    /// The owner gives access away.
    Grant { who: u8, devices: u8 },
    /// The owner adds days to a subscription.
    Extend { sub: u16, days: u8 },
    /// The owner stops a subscription.
    Freeze { sub: u16 },
    /// The owner lets a subscription go on.
    Unfreeze { sub: u16 },
    /// The owner ends a subscription.
    Revoke { sub: u16 },
    /// A customer brings a key for a device.
    OwnKey { sub: u16 },
    /// Days pass in which nobody comes.
    Days { days: u8 },
    /// A person buys by the bot's buttons, with so many taps on the last one.
    ButtonBuy { who: u8, what: u8, by: By, taps: u8 },
    /// A person taps on a button to pay that they have from before, used or not.
    ButtonAgain { who: u8, by: By },
    /// A person asks the owner for help.
    Ask { who: u8 },
    /// The owner replies to a question.
    Reply { question: u16 },
    /// Everybody gets news.
    Campaign,
    /// All faults end.
    Heal,
}

/// A deed and the milliseconds that pass before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The time before it.
    pub after_ms: u64,
    /// The deed.
    pub step: Step,
}

/// What may stand in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything.
    Stormy,
    /// Neither faults nor restarts: its course is the same whatever the database.
    Quiet,
}

/// Lines that share their weather.
const WINDOW: usize = 80;

/// Draws a program of so many lines.
pub fn draw(seed: u64, lines: usize, kind: Kind) -> Vec<Line> {
    let mut dice = Dice(fastrand::Rng::with_seed(seed ^ 0x0051_AB1E));
    let mut program = Vec::with_capacity(lines);
    let mut storm = false;
    while program.len() < lines {
        if program.len().is_multiple_of(WINDOW) {
            if storm {
                program.push(dice.line(Step::Heal));
            }
            storm = kind == Kind::Stormy && dice.one_in(6);
        }
        let step = if storm && dice.below(100) < 9 { dice.fault() } else { dice.step(kind, storm) };
        program.push(dice.line(step));
    }
    program.truncate(lines);
    program
}

struct Dice(fastrand::Rng);

impl Dice {
    fn below(&mut self, n: u32) -> u32 {
        self.0.u32(..n)
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    fn small(&mut self, n: u8) -> u8 {
        self.0.u8(..n)
    }

    fn pick(&mut self) -> u16 {
        self.0.u16(..)
    }

    fn line(&mut self, step: Step) -> Line {
        Line { after_ms: 1 + u64::from(self.below(2_000)), step }
    }

    fn provider(&mut self) -> By {
        [By::Yookassa, By::Heleket, By::CrystalPay][self.0.usize(..3)]
    }

    fn by(&mut self) -> By {
        match self.below(56) {
            0..8 => By::Balance,
            8..14 => By::Stars,
            _ => self.provider(),
        }
    }

    /// Whose list is read.
    fn list(&mut self) -> By {
        if self.one_in(4) { By::Stars } else { self.provider() }
    }

    fn step(&mut self, kind: Kind, storm: bool) -> Step {
        match self.below(1000) {
            0..160 => self.order(),
            160..190 => {
                let many = if self.one_in(8) { 2 } else { 1 };
                Step::Buy { who: self.small(10), month: self.one_in(2), many, by: self.by() }
            }
            190..355 => {
                let how = match self.below(10) {
                    0 => How::Short,
                    1 => How::Surplus,
                    _ => How::Exact,
                };
                Step::Pay { order: self.pick(), how }
            }
            355..380 => {
                let told = match self.below(10) {
                    0..2 => Told::Never,
                    2..4 => Told::Twice,
                    _ => Told::Once,
                };
                Step::PayStars { order: self.pick(), told }
            }
            380..570 => Step::Deliver(match self.below(100) {
                0..60 => Hooks::All,
                60..70 => Hooks::Last,
                70..78 => Hooks::Backwards,
                78..88 => Hooks::Twice,
                _ => Hooks::Lost,
            }),
            570..640 => Step::Jobs,
            640..648 => Step::Ask { who: self.small(30) },
            648..655 => Step::Reply { question: self.pick() },
            655..682 => {
                let taps = if self.one_in(3) { 2 + self.small(3) } else { 1 };
                Step::ButtonBuy { who: self.small(30), what: self.small(8), by: self.by(), taps }
            }
            682..688 => Step::ButtonAgain { who: self.small(30), by: self.by() },
            688..690 => Step::Campaign,
            690..700 => Step::Trial { who: self.small(30) },
            700..705 => Step::Grant { who: self.small(30), devices: 1 + self.small(2) },
            705..711 => Step::Extend { sub: self.pick(), days: 1 + self.small(10) },
            711..720 => Step::Freeze { sub: self.pick() },
            720..730 => Step::Unfreeze { sub: self.pick() },
            730..734 => Step::OwnKey { sub: self.pick() },
            734..737 => Step::Revoke { sub: self.pick() },
            737..740 => Step::Days { days: 1 + self.small(12) },
            740..800 => {
                let long = self.one_in(30);
                Step::Wait { seconds: if long { 300 } else { 1 + u16::from(self.small(20)) } }
            }
            800..840 => Step::Stock { what: self.small(5), many: 1 + self.small(5), again: self.one_in(3) },
            840..870 => Step::PayOtherwise { order: self.pick(), by: self.by() },
            870..900 => Step::Refund { order: self.pick(), to_provider: self.one_in(2), part: self.one_in(2) },
            900..915 => {
                let told = !self.one_in(3);
                Step::Cabinet { order: self.pick(), part: self.one_in(2), told }
            }
            915..935 => Step::Cancel { order: self.pick() },
            935..955 => Step::Tap { who: self.small(30), what: self.small(6), by: self.by(), one_key: self.one_in(2) },
            955..975 => Step::Lie { order: self.pick() },
            975..984 => Step::Look { order: self.pick() },
            984..990 => Step::Withdraw { what: self.small(5), many: 1 + self.small(3) },
            990..994 if !storm => Step::Sweep(self.list()),
            994..1000 if kind == Kind::Stormy => Step::Restart { lost: self.small(4) },
            _ => Step::Jobs,
        }
    }

    fn order(&mut self) -> Step {
        let many = if self.one_in(4) { 2 + self.small(2) } else { 1 };
        Step::Order { who: self.small(30), what: self.small(6), many, by: self.by() }
    }

    fn fault(&mut self) -> Step {
        let wrongs = [Wrong::Fails, Wrong::FailsAfter, Wrong::Silence, Wrong::CutBefore, Wrong::CutAfter, Wrong::Slow];
        let (wrong, times) = (wrongs[self.0.usize(..wrongs.len())], 1 + self.small(3));
        match self.below(20) {
            0..12 => Step::Fault { at: self.provider(), wrong, times },
            12..19 => Step::TelegramFault { wrong, times },
            _ => Step::Block { who: self.small(30) },
        }
    }
}

/// A program as lines of Rust, to be put into a test.
pub fn print(program: &[Line]) -> String {
    let line = |line: &Line| format!("    ({}, Step::{:?}),\n", line.after_ms, line.step);
    let lines: String = program.iter().map(line).collect();
    format!("[\n{lines}  ]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_program() {
        assert_eq!(draw(7, 500, Kind::Stormy), draw(7, 500, Kind::Stormy));
        assert_ne!(draw(7, 500, Kind::Stormy), draw(8, 500, Kind::Stormy));
    }

    #[test]
    fn access_is_part_of_every_life() {
        let program = draw(7, 1_500, Kind::Stormy);
        let of_access = |line: &&Line| matches!(line.step, Step::Buy { .. } | Step::Trial { .. } | Step::Freeze { .. });
        assert!(program.iter().filter(of_access).count() > 30);
        assert!(program.iter().any(|line| matches!(line.step, Step::Days { .. })));
    }

    #[test]
    fn talking_is_part_of_every_life() {
        let program = draw(7, 20_000, Kind::Quiet);
        assert!(program.iter().filter(|line| matches!(line.step, Step::ButtonBuy { .. })).count() > 100);
        assert!(program.iter().any(|line| line.step == Step::Campaign));
        assert!(program.iter().filter(|line| matches!(line.step, Step::Ask { .. })).count() > 50);
        assert!(program.iter().filter(|line| matches!(line.step, Step::Reply { .. })).count() > 50);
    }

    #[test]
    fn stock_goes_out_again_in_every_life() {
        let program = draw(7, 20_000, Kind::Quiet);
        assert!(program.iter().filter(|line| matches!(line.step, Step::Withdraw { .. })).count() > 50);
    }

    #[test]
    fn stars_are_part_of_every_life() {
        let program = draw(7, 20_000, Kind::Quiet);
        let count = |is: fn(&Step) -> bool| program.iter().filter(|line| is(&line.step)).count();
        assert!(count(|step| matches!(step, Step::PayStars { .. })) > 100);
        assert!(count(|step| matches!(step, Step::Order { by: By::Stars, .. })) > 100);
        assert!(count(|step| matches!(step, Step::ButtonBuy { by: By::Stars, .. })) > 10);
        assert!(count(|step| matches!(step, Step::Sweep(By::Stars))) > 5);
    }

    #[test]
    fn a_quiet_program_has_neither_faults_nor_restarts() {
        for line in draw(7, 2000, Kind::Quiet) {
            let loud = matches!(
                line.step,
                Step::Fault { .. } | Step::TelegramFault { .. } | Step::Block { .. } | Step::Restart { .. }
            );
            assert!(!loud, "{line:?}");
        }
    }
}
