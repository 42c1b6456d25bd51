//! The pace on tokio's own clock, which a test stops: time passes when everybody waits.

use semel_kernel::clock::Clock;
use semel_telegram::pacer::Rate;
use tokio::task::JoinSet;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn pace() -> Pace {
    Pace::new(Limits::per_second(28), Chance::seeded(1))
}

fn ms(from: Instant) -> u128 {
    from.elapsed().as_millis()
}

/// Lets all tasks run until each of them waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn waiting(pace: &Pace, lane: Lane) -> usize {
    pace.view().waiting.into_iter().find(|(of, _)| *of == lane).map_or(0, |(_, count)| count)
}

#[tokio::test(start_paused = true)]
async fn the_first_turn_comes_after_a_careful_second_and_the_others_at_the_rate() {
    let (pace, start) = (pace(), Instant::now());
    let mut tasks = JoinSet::new();
    for chat in 0..57 {
        let pace = pace.clone();
        tasks.spawn(async move {
            let turn = pace.turn(Lane::Campaign, chat + 1, format!("msg_{chat}")).await;
            let at = ms(start);
            turn.done(Heard::Sent);
            at
        });
    }
    let mut times = tasks.join_all().await;
    times.sort_unstable();
    assert!(times[0] >= 1_000, "somebody went after {} ms", times[0]);
    for (first, last) in times.iter().zip(times.iter().skip(28)) {
        assert!(last - first >= 1_000, "29 turns in {} ms", last - first);
    }
    assert!(times[56] <= 1_100 + 56 * 37, "the last one went after {} ms", times[56]);
    settle().await;
    assert_eq!((pace.view().under_way, pace.0.lock().driven), (0, false), "nobody waits, so nothing runs");
}

#[tokio::test(start_paused = true)]
async fn what_is_more_important_goes_first() {
    let pace = pace();
    let mut tasks = JoinSet::new();
    for (chat, lane) in [(1, Lane::Reminder), (2, Lane::Money), (3, Lane::Goods)] {
        let pace = pace.clone();
        tasks.spawn(async move {
            let turn = pace.turn(lane, chat, String::new()).await;
            turn.done(Heard::Sent);
            lane
        });
    }
    let mut order = Vec::new();
    while let Some(lane) = tasks.join_next().await {
        order.push(lane.expect("a turn"));
    }
    assert_eq!(order, [Lane::Goods, Lane::Money, Lane::Reminder]);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_gives_the_place_back() {
    let pace = pace();
    let waits = tokio::spawn({
        let pace = pace.clone();
        async move { pace.turn(Lane::Money, 7, "msg_1".into()).await.done(Heard::Sent) }
    });
    settle().await;
    assert_eq!(waiting(&pace, Lane::Money), 1);
    waits.abort();
    assert!(waits.await.is_err());
    assert_eq!(waiting(&pace, Lane::Money), 0);

    let turn = pace.turn(Lane::Money, 8, "msg_2".into()).await;
    assert_eq!(pace.view().under_way, 1);
    drop(turn);
    assert_eq!(pace.view().under_way, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_chat_waits_and_the_others_go_on() {
    let pace = pace();
    let turn = pace.turn(Lane::Answer, 7, "msg_1".into()).await;
    let quiet = turn.done(Heard::TooMany { retry_after: 35 * SECOND }).expect("a silence");
    assert!(!quiet.whole_bot && quiet.left >= 35 * SECOND && quiet.left <= 36 * SECOND, "{quiet:?}");

    let again = pace.turn_within(Lane::Answer, 7, "msg_1".into(), SECOND).await;
    let NotNow { left } = again.expect_err("its chat is silent");
    assert!(left >= 34 * SECOND, "{left:?}");
    assert_eq!(waiting(&pace, Lane::Answer), 0, "who does not wait holds no place");
    let start = Instant::now();
    pace.turn_within(Lane::Answer, 8, "msg_2".into(), SECOND).await.expect("a turn").done(Heard::Sent);
    assert!(ms(start) <= 100);
}

#[tokio::test(start_paused = true)]
async fn the_third_refused_chat_silences_all() {
    let pace = pace();
    let mut quiet = None;
    for chat in 1..=3 {
        let turn = pace.turn(Lane::Money, chat, String::new()).await;
        quiet = turn.done(Heard::TooMany { retry_after: 20 * SECOND });
    }
    assert!(quiet.expect("a silence").whole_bot);
    assert_eq!(pace.view().rate, Rate::per_second(21));
    let start = Instant::now();
    let other = pace.turn(Lane::Goods, 99, String::new()).await;
    assert!(ms(start) >= 19_800, "somebody spoke after {} ms", ms(start));
    assert_eq!(other.done(Heard::Sent), None);
}

#[tokio::test(start_paused = true)]
async fn those_who_come_for_one_chat_are_told_different_moments() {
    let pace = pace();
    sleep(10 * SECOND).await;
    for _ in 0..3 {
        pace.turn_within(Lane::Answer, 7, String::new(), Duration::ZERO).await.expect("a burst").done(Heard::Sent);
    }
    let mut told = Vec::new();
    for _ in 0..4 {
        let later = pace.turn_within(Lane::Answer, 7, String::new(), Duration::ZERO).await;
        told.push(later.expect_err("the burst is used up").left);
    }
    for (one, next) in told.iter().zip(told.iter().skip(1)) {
        assert!(*next >= *one + SECOND, "{told:?}");
    }
    sleep(told[0]).await;
    assert!(pace.turn_within(Lane::Answer, 7, String::new(), Duration::ZERO).await.is_ok(), "the first finds it free");
}

#[tokio::test(start_paused = true)]
async fn a_silence_of_an_earlier_run_is_kept_and_a_takeover_is_careful() {
    let pace = pace();
    pace.silence(30 * SECOND);
    pace.silence_chat(7, 60 * SECOND);
    assert!(pace.turn_within(Lane::Goods, 8, String::new(), SECOND).await.is_err());
    let start = Instant::now();
    pace.turn(Lane::Goods, 8, String::new()).await.done(Heard::Sent);
    assert!(ms(start) >= 30_000);
    pace.turn(Lane::Goods, 7, String::new()).await.done(Heard::Sent);
    assert!(ms(start) >= 60_000);
    pace.start_carefully();
    pace.turn(Lane::Goods, 9, String::new()).await.done(Heard::Sent);
    assert!(ms(start) >= 61_000);
}

/// Who waits while a silence begins, or a longer one, hears of it.
#[tokio::test(start_paused = true)]
async fn a_silence_that_begins_meanwhile_holds_for_who_waits_already() {
    let (pace, start) = (pace(), Instant::now());
    let waits = tokio::spawn({
        let pace = pace.clone();
        async move { pace.turn(Lane::Money, 7, String::new()).await.done(Heard::Sent) }
    });
    settle().await;
    pace.silence(5 * SECOND);
    assert_eq!(waits.await.expect("a turn"), None);
    assert!(ms(start) >= 5_000);
}

#[tokio::test]
async fn time_that_moves_by_hand_is_waited_for_in_silences_only() {
    let clock = Clock::manual(Time::from_millis(1_700_000_000_000));
    let told = clock.clone();
    let pace = Pace::by_hand(Limits::per_second(28), Chance::seeded(1), move || told.now());
    for _ in 0..100 {
        let turn = pace.turn_within(Lane::Money, 7, String::new(), Duration::ZERO).await;
        turn.expect("nobody waits for a pace").done(Heard::Sent);
    }
    let turn = pace.turn(Lane::Money, 7, String::new()).await;
    let quiet = turn.done(Heard::TooMany { retry_after: 30 * SECOND }).expect("a silence");
    let later = pace.turn_within(Lane::Money, 7, String::new(), SECOND).await.expect_err("the chat is silent");
    assert_eq!(later.left, quiet.left);
    assert!(pace.turn_within(Lane::Money, 8, String::new(), SECOND).await.is_ok());
    clock.advance(quiet.left);
    assert!(pace.turn_within(Lane::Money, 7, String::new(), SECOND).await.is_ok());
}

/// A thousand answers at once, and a key that was paid for after them.
#[tokio::test(start_paused = true)]
async fn a_crowd_waits_in_the_database_and_keeps_no_worker_from_what_was_paid_for() {
    let pace = pace();
    let mut tasks = JoinSet::new();
    for chat in 1..=20 {
        let pace = pace.clone();
        tasks.spawn(async move {
            let turn = pace.turn_within(Lane::Answer, chat, String::new(), 2 * SECOND).await.expect("a turn");
            turn.done(Heard::Sent);
        });
    }
    settle().await;
    assert_eq!(waiting(&pace, Lane::Answer), 20);
    let mut told = Vec::new();
    for chat in 21..=40 {
        let away = pace.turn_within(Lane::Money, chat, String::new(), 2 * SECOND).await;
        told.push(away.expect_err("twenty wait already").left);
    }
    for (one, next) in told.iter().zip(told.iter().skip(1)) {
        assert_eq!((*next - *one).as_millis(), 35, "as fast as they can go: {told:?}");
    }
    let start = Instant::now();
    pace.turn_within(Lane::Goods, 99, String::new(), 2 * SECOND).await.expect("a turn").done(Heard::Sent);
    assert!(ms(start) <= 1_250, "the careful second, and three answers before it: {} ms", ms(start));
    tasks.join_all().await;
    sleep(told[0].saturating_sub(start.elapsed())).await;
    assert!(
        pace.turn_within(Lane::Money, 21, String::new(), SECOND).await.is_ok(),
        "there is room when it comes again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_belongs_to_no_chat_silences_all() {
    let pace = pace();
    let left = pace.refused(20 * SECOND);
    assert!(left >= 20 * SECOND && left <= 21 * SECOND, "{left:?}");
    let NotNow { left } = pace.turn_within(Lane::Goods, 7, String::new(), SECOND).await.expect_err("a silence");
    assert!(left >= 19 * SECOND, "{left:?}");
}

/// All that are due at one moment, as a night's reminders are.
fn remind(pace: &Pace, count: i64, step: Duration) -> (usize, Vec<Duration>) {
    let (mut went, mut told) = (0, Vec::new());
    for chat in 1..=count {
        match pace.reminder(chat, step) {
            Ok(()) => went += 1,
            Err(NotNow { left }) => told.push(left),
        }
    }
    (went, told)
}

#[tokio::test(start_paused = true)]
async fn reminders_of_one_moment_wait_evenly_spaced_below_the_rate() {
    let pace = pace();
    let (went, told) = remind(&pace, 200, Duration::ZERO);
    // Two thirds of 28 a second; one second's worth may go before.
    assert!((18..=20).contains(&went), "{went} went at once");
    for (one, next) in told.iter().zip(told.iter().skip(1)) {
        let gap = (*next - *one).as_millis();
        assert!((50..=60).contains(&gap), "{gap} ms between two: {told:?}");
    }
    // Each finds it free when told to come again, and takes nobody else's moment.
    let start = Instant::now();
    for (place, left) in told.iter().enumerate() {
        sleep(*left - start.elapsed().min(*left)).await;
        assert_eq!(pace.reminder(1_000, Duration::ZERO), Ok(()), "number {place}");
    }
    assert_eq!(waiting(&pace, Lane::Reminder), 0, "whoever waits in the database holds no place here");
}

#[tokio::test(start_paused = true)]
async fn the_owners_speed_of_reminders_is_a_lower_one() {
    let pace = pace();
    let (went, told) = remind(&pace, 10, SECOND / 2);
    assert_eq!(went, 3, "one, and what a second holds");
    for (one, next) in told.iter().zip(told.iter().skip(1)) {
        assert_eq!(*next - *one, SECOND / 2, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silence_is_no_business_of_a_reminders_place() {
    let pace = pace();
    pace.silence_chat(7, 60 * SECOND);
    for _ in 0..100 {
        assert_eq!(pace.reminder(7, SECOND), Ok(()), "its turn tells it when to come again");
    }
    assert_eq!(remind(&pace, 3, SECOND / 2), (3, Vec::new()), "nothing was taken from the others");
    let clock = Clock::manual(Time::from_millis(1_700_000_000_000));
    let by_hand = Pace::by_hand(Limits::per_second(28), Chance::seeded(1), move || clock.now());
    assert_eq!(remind(&by_hand, 100, SECOND), (100, Vec::new()), "nobody can wait for time that moves by hand");
}

#[tokio::test(start_paused = true)]
async fn who_gives_the_sending_up_is_known_to_until_it_begins_again() {
    let pace = pace();
    assert!(!pace.is_leaving());
    pace.clone().leave();
    assert!(pace.is_leaving(), "clones are one pace");
    pace.turn(Lane::Goods, 7, String::new()).await.done(Heard::Sent);
    pace.start_carefully();
    assert!(!pace.is_leaving());
    let start = Instant::now();
    pace.turn(Lane::Goods, 8, String::new()).await.done(Heard::Sent);
    assert!(ms(start) >= 1_000, "another copy may have used the last second: {} ms", ms(start));
}

#[test]
fn what_was_paid_for_goes_before_money_and_money_before_reminders() {
    let lanes = [
        ("goods", Lane::Goods),
        ("vpn_file", Lane::Goods),
        ("vpn_qr", Lane::Goods),
        ("balance", Lane::Money),
        ("refund", Lane::Money),
        ("reward", Lane::Money),
        ("alert", Lane::Money),
        ("vpn_ends", Lane::Reminder),
        ("vpn_howto", Lane::Goods),
        ("words", Lane::Goods),
        ("vpn_granted", Lane::Answer),
        ("news", Lane::Answer),
    ];
    for (kind, lane) in lanes {
        assert_eq!(lane_of(kind), lane, "{kind}");
    }
}
