//! Power cuts: a run of sales, of access to the VPN among them, with a campaign on its way, is written down change by change, cut
//! at many places, and each time a disk is made that the cut may have left behind. SQLite must open it, no acknowledged webhook
//! and no acknowledged order may be missing, nor the beginning of any message of the campaign that Telegram took; the VPN server's
//! file, which lies beside the database, must be one whole version; and every promise that needs no witness must hold.

pub mod check;
pub mod disk;
pub mod record;
pub mod trace;

use std::sync::Arc;

use tokio::task::JoinSet;

use semel_prove::report::{Figure, Options};

use check::{Found, check};
use disk::Manner;
use record::{Recording, Wish, record};
use trace::Change;

use crate::syscalls::ground::{prepared, spread};

/// What came of all images.
#[derive(Default)]
struct Tally {
    images: u64,
    looked_for: u64,
    lost: Vec<String>,
    corrupt: Vec<String>,
    broken: Vec<String>,
    torn: Vec<String>,
    /// Images whose file of the VPN server names customers.
    with_peers: u64,
}

impl Tally {
    fn add(&mut self, name: &str, found: Found) {
        self.images += 1;
        self.looked_for += found.looked_for as u64;
        self.with_peers += u64::from(found.peers > 0);
        self.torn.extend(found.torn.into_iter().map(|one| format!("{name}: {one}")));
        self.lost.extend(found.lost.into_iter().map(|one| format!("{name}: {one} is not there")));
        self.corrupt.extend(found.corrupt.into_iter().map(|one| format!("{name}: {one}")));
        self.broken.extend(found.broken.into_iter().map(|one| format!("{name}: {one}")));
    }
}

/// Runs the campaign.
///
/// # Errors
/// It cannot begin: no C compiler, or a folder that cannot be written.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let folder = options.work.join("power");
    let ground = prepared(options, "power").await?;
    let (mut tally, mut troubles, mut records) = (Tally::default(), Vec::new(), 0);
    let recorded = spread(options.at_once, wishes(options.small), {
        let ground = Arc::clone(&ground);
        move |(wish, _)| record(Arc::clone(&ground), wish)
    });
    for ((wish, images), recording) in recorded.await {
        match recording {
            Ok(recording) => {
                records += recording.trace.records.len();
                let recording = Arc::new(recording);
                let place = folder.join(format!("images-{}", wish.number));
                let seed = options.seed ^ ((wish.number as u64) << 32);
                let campaign = Campaign { wish, images, at_once: options.at_once.max(1), seed, place };
                campaign.run(&recording, &mut tally).await;
            }
            Err(error) => troubles.push(format!("recording {wish:?}: {error}")),
        }
    }
    Ok(figures(tally, troubles, records, if options.small { 150 } else { 5000 }))
}

fn figures(tally: Tally, troubles: Vec<String>, records: usize, wanted: u64) -> Vec<Figure> {
    let none = |name: &str, troubles: Vec<String>| {
        let figure = Figure::judged(name, troubles.len().to_string(), "0", troubles.is_empty());
        Figure { troubles, ..figure }
    };
    let images = Figure::at_least("Disks after a power cut", tally.images, wanted);
    vec![
        Figure::told("Changes of the database's files that were recorded", records.to_string()),
        Figure { good: images.good && troubles.is_empty(), troubles, ..images },
        Figure::judged(
            "Acknowledged webhooks, orders and messages of a campaign looked for on them",
            tally.looked_for.to_string(),
            "some",
            tally.looked_for > 0,
        ),
        none("Acknowledged webhooks, orders and messages of a campaign lost", tally.lost),
        none("Corrupt disks", tally.corrupt),
        Figure::judged(
            "Disks whose wg0.conf names customers",
            tally.with_peers.to_string(),
            "some",
            tally.with_peers > 0,
        ),
        none("wg0.conf on them that is not whole or ahead of the database", tally.torn),
        none("Broken promises on them", tally.broken),
    ]
}

/// What is recorded, and how many disks are made of it. The recording with a checkpoint has a long log, so there are fewer.
fn wishes(small: bool) -> Vec<(Wish, usize)> {
    let plain = |number, sales| Wish { number, sales, checkpoint: false };
    let long = |number, sales| Wish { number, sales, checkpoint: true };
    if small {
        return vec![(plain(1, 2), 140), (long(2, 1), 20)];
    }
    vec![(plain(1, 1), 1000), (plain(2, 3), 1300), (plain(3, 6), 1300), (plain(4, 10), 1000), (long(5, 3), 500)]
}

/// The cuts of one recording.
struct Campaign {
    wish: Wish,
    images: usize,
    at_once: usize,
    seed: u64,
    place: std::path::PathBuf,
}

impl Campaign {
    async fn run(&self, recording: &Arc<Recording>, tally: &mut Tally) {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let (trace, mut disk) = (&recording.trace, recording.start.clone());
        let mut running: JoinSet<(String, Found)> = JoinSet::new();
        for (number, cut) in self.cuts(recording, &mut rng).into_iter().enumerate() {
            disk.advance(trace, cut);
            let manner = Manner::any(&mut rng);
            let image = disk.image(trace, manner, &mut rng);
            // Until the next change is done the disk may be as it is now, so all that was heard until then must be on it.
            let heard = trace.records.get(cut).map_or(recording.acknowledged.len(), |next| next.acknowledged);
            let name = format!(
                "recording {:?} with seed {}, image {number}: cut before change {cut} of {}, {manner:?}",
                self.wish,
                self.seed,
                trace.records.len()
            );
            let (recording, folder) = (Arc::clone(recording), self.place.join(number.to_string()));
            while running.len() >= self.at_once {
                take(running.join_next().await, tally);
            }
            running.spawn(async move {
                let heard = heard.min(recording.acknowledged.len());
                let found = check(image, &folder, &recording.acknowledged[..heard], recording.end).await;
                (name, found)
            });
        }
        while !running.is_empty() {
            take(running.join_next().await, tally);
        }
        let _ = std::fs::remove_dir_all(&self.place);
    }

    /// Where the power goes, in the order of time: anywhere, and as often close to a sync, where most is decided.
    fn cuts(&self, recording: &Recording, rng: &mut fastrand::Rng) -> Vec<usize> {
        let records = &recording.trace.records;
        let is_sync = |change| matches!(change, Change::Sync | Change::SyncFolder);
        let syncs: Vec<usize> = (0..records.len()).filter(|at| is_sync(records[*at].change)).collect();
        let mut cuts: Vec<usize> = (0..self.images)
            .map(|turn| {
                if turn % 2 == 0 || syncs.is_empty() {
                    return rng.usize(0..=records.len());
                }
                let sync = syncs[rng.usize(0..syncs.len())];
                (sync + rng.usize(0..5)).saturating_sub(2).min(records.len())
            })
            .collect();
        cuts.sort_unstable();
        cuts
    }
}

fn take(ended: Option<Result<(String, Found), tokio::task::JoinError>>, tally: &mut Tally) {
    match ended {
        Some(Ok((name, found))) => tally.add(&name, found),
        Some(Err(error)) => tally.corrupt.push(format!("a look at an image ended badly: {error}")),
        None => {}
    }
}
