//! Brings `wg0.conf` and the interface to what is wanted, and looks whether they are there.
//!
//! The file first, then the interface: what an interface has and its file has not would be gone after the next start of
//! the machine. Running it again is always safe; with nothing to do it only looks. What a step did stays done when a later
//! one fails, and the next run goes on from there. Peers that nobody told us to know are never touched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;
use tokio::task::{JoinError, spawn_blocking};

use crate::conf::Keep;
use crate::file::{self, ConfPath, FileError, NoSteps, Steps};
use crate::key::PublicKey;
use crate::peer::Peer;
use crate::plan::{Plan, Seen, plan};
use crate::tool::{Tool, ToolError};

/// How long to wait for another process that holds the lock of the file.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// What is to be brought to the wanted state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Only a file: there is no interface here.
    File(ConfPath),
    /// A file and the interface that it describes.
    Both {
        /// The file.
        conf: ConfPath,
        /// The name of the interface.
        interface: String,
        /// The program that knows it.
        tool: Tool,
    },
}

impl Target {
    /// Where its file is.
    pub fn conf(&self) -> &ConfPath {
        match self {
            Self::File(conf) | Self::Both { conf, .. } => conf,
        }
    }
}

/// What a run found and did. Of a file alone the lists tell the same about the file.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The interface (of a file alone: the file) as it was afterwards.
    pub seen: Seen,
    /// Whether the file was replaced.
    pub file_changed: bool,
    /// The peers that were missing.
    pub added: Vec<PublicKey>,
    /// The peers that were there with other addresses or another preshared key.
    pub changed: Vec<PublicKey>,
    /// The peers that were there and not wanted any more.
    pub removed: Vec<PublicKey>,
    /// The peers that nobody told us to know. They are still there.
    pub foreign: Vec<PublicKey>,
    /// Peers that are or once were ours, and that somebody wrote into the file outside of our fence. They are left there
    /// as they are: one that is not wanted any more would come back with the next start of the machine, so a person
    /// should delete it.
    pub outside: Vec<PublicKey>,
    /// The networks of all peers in file and interface that are not wanted and that a run leaves where they are: nobody
    /// else may get an address of theirs.
    pub theirs: Vec<(PublicKey, IpNet)>,
}

/// Why it is not as wanted. The next run goes on.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The file is as it was, and the interface was not called.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is as right as it can be; how far the interface got is not known.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Some peers are not as wanted: the tool refused them or did nothing, or a foreign peer has their key or address. All
    /// others are.
    #[error(
        "{}{} peers are missing or different and {} are still there{}",
        said(.failed), .missing.len(), .left.len(), first_of(.missing, .left)
    )]
    NotDone {
        /// Wanted, and not there or not as wanted.
        missing: Vec<PublicKey>,
        /// Not wanted, and still there.
        left: Vec<PublicKey>,
        /// What the tool said, if it said anything.
        failed: Option<Box<ToolError>>,
        /// All that was seen, for whoever can go on with the rest.
        report: Box<Report>,
    },
    /// The thread that does the file's work broke off.
    #[error("the work on the file broke off: {0}")]
    BrokeOff(JoinError),
}

fn said(failed: &Option<Box<ToolError>>) -> String {
    match failed {
        None => "each step ended well, and yet ".to_owned(),
        Some(failed) => format!("{failed}; "),
    }
}

fn first_of(missing: &[PublicKey], left: &[PublicKey]) -> String {
    missing.iter().chain(left).next().map(|key| format!(", first {key}")).unwrap_or_default()
}

/// What a run would do.
#[derive(Debug, Clone, Default)]
pub struct Drift {
    /// What the interface lacks. None: there is no interface.
    pub plan_interface: Option<Plan>,
    /// What the file lacks.
    pub plan_file: Plan,
    /// Whether what stands between our fence lines is what we wrote there.
    pub whole: bool,
    /// As in [`Report`].
    pub outside: Vec<PublicKey>,
    /// As in [`Report`].
    pub theirs: Vec<(PublicKey, IpNet)>,
    /// What the interface showed. None: there is no interface.
    pub interface: Option<Seen>,
}

impl Drift {
    /// Whether all is as it shall be.
    pub fn is_none(&self) -> bool {
        self.whole && self.plan_file.is_empty() && self.plan_interface.as_ref().is_none_or(Plan::is_empty)
    }
}

/// Makes the peers of the target exactly `wanted`, and leaves those that are not in `ours` (all keys that are or once were
/// ours) alone.
///
/// Afterwards everything is read once more: a tool that ends well without doing its work is found out.
///
/// # Errors
/// Any [`ReconcileError`]. Call it again after a while.
pub async fn reconcile(target: &Target, wanted: &[Peer], ours: &BTreeSet<PublicKey>) -> Result<Report, ReconcileError> {
    let nobody: Arc<dyn Steps> = Arc::new(NoSteps);
    reconcile_with(target, wanted, ours, &nobody).await
}

/// As [`reconcile`], told to `steps`.
///
/// # Errors
/// As [`reconcile`].
pub async fn reconcile_with(
    target: &Target,
    wanted: &[Peer],
    ours: &BTreeSet<PublicKey>,
    steps: &Arc<dyn Steps>,
) -> Result<Report, ReconcileError> {
    reconcile_keeping(target, wanted, ours, &Keep::Nobody, steps).await
}

/// As [`reconcile_with`], but peers between the fence lines that `keep` names stay there. On the interface whatever is not in
/// `ours` stays anyway.
///
/// # Errors
/// As [`reconcile`].
pub async fn reconcile_keeping(
    target: &Target,
    wanted: &[Peer],
    ours: &BTreeSet<PublicKey>,
    keep: &Keep,
    steps: &Arc<dyn Steps>,
) -> Result<Report, ReconcileError> {
    let of_file = bring_file(target, wanted, ours, keep, steps).await?;
    match target {
        Target::File(_) => of_file.end(),
        Target::Both { interface, tool, .. } => {
            bring_interface(interface, tool, wanted, ours, steps.as_ref(), of_file).await
        }
    }
}

/// What [`reconcile`] would do, without doing it.
///
/// # Errors
/// When the file or the interface cannot be read, or a run would refuse the file.
pub async fn drift(target: &Target, wanted: &[Peer], ours: &BTreeSet<PublicKey>) -> Result<Drift, ReconcileError> {
    if let Target::Both { conf, .. } = target {
        let path = conf.file.clone();
        let read = spawn_blocking(move || file::read_of_interface(&path).map(drop));
        read.await.map_err(ReconcileError::BrokeOff)??;
    }
    compare(target, wanted, ours, true).await
}

/// As [`drift`], but only keys and addresses are compared: for whoever looks often and opens no secrets for it.
///
/// # Errors
/// As [`drift`].
pub async fn glance(target: &Target, wanted: &[Peer], ours: &BTreeSet<PublicKey>) -> Result<Drift, ReconcileError> {
    compare(target, wanted, ours, false).await
}

async fn compare(
    target: &Target,
    wanted: &[Peer],
    ours: &BTreeSet<PublicKey>,
    with_secrets: bool,
) -> Result<Drift, ReconcileError> {
    let path = target.conf().file.clone();
    let conf = spawn_blocking(move || file::read(&path)).await.map_err(ReconcileError::BrokeOff)??;
    let interface = match target {
        Target::File(_) => None,
        Target::Both { interface, tool, .. } => Some(tool.show(interface).await?),
    };
    let against = |seen: &Seen| match with_secrets {
        true => plan(wanted, seen, ours),
        false => plan(&with_secrets_of(wanted, seen), seen, ours),
    };
    let (of_file, outside) = (conf.seen(), conf.outside());
    let mut theirs = left_alone(&of_file, wanted, ours, &outside);
    if let Some(seen) = &interface {
        theirs.extend(left_alone(seen, wanted, ours, &BTreeSet::new()));
    }
    Ok(Drift {
        plan_interface: interface.as_ref().map(against),
        plan_file: against(&of_file),
        whole: conf.whole(),
        outside: known_outside(&outside, wanted, ours),
        theirs: theirs.into_iter().collect(),
        interface,
    })
}

/// The same peers, as if their preshared keys were those that are seen.
fn with_secrets_of(wanted: &[Peer], seen: &Seen) -> Vec<Peer> {
    let shown = |peer: &Peer| seen.peers.get(&peer.public_key).and_then(|there| there.preshared.clone());
    wanted.iter().map(|peer| Peer { preshared: shown(peer), ..peer.clone() }).collect()
}

/// What a run left behind in one place, or in both.
struct Half {
    report: Report,
    missing: BTreeSet<PublicKey>,
    left: BTreeSet<PublicKey>,
    failed: Option<Box<ToolError>>,
}

impl Half {
    fn new(rest: Plan, report: Report) -> Self {
        let mut missing: BTreeSet<PublicKey> = keys(&rest.add).into_iter().collect();
        missing.extend(keys(&rest.change));
        missing.extend(rest.refused);
        Self { report, missing, left: rest.remove.into_iter().collect(), failed: None }
    }

    /// The report, unless something is left to do.
    fn end(self) -> Result<Report, ReconcileError> {
        if self.missing.is_empty() && self.left.is_empty() {
            return Ok(self.report);
        }
        Err(ReconcileError::NotDone {
            missing: self.missing.into_iter().collect(),
            left: self.left.into_iter().collect(),
            failed: self.failed,
            report: Box::new(self.report),
        })
    }
}

async fn bring_file(
    target: &Target,
    wanted: &[Peer],
    ours: &BTreeSet<PublicKey>,
    keep: &Keep,
    steps: &Arc<dyn Steps>,
) -> Result<Half, ReconcileError> {
    let (target, wanted, ours, keep) = (target.clone(), wanted.to_vec(), ours.clone(), keep.clone());
    let steps = Arc::clone(steps);
    // Whoever waits for it may go away: it goes on to its end, and the lock keeps the next one waiting.
    let work = move || bring_file_now(&target, &wanted, &ours, &keep, steps.as_ref());
    spawn_blocking(work).await.map_err(ReconcileError::BrokeOff)?
}

fn bring_file_now(
    target: &Target,
    wanted: &[Peer],
    ours: &BTreeSet<PublicKey>,
    keep: &Keep,
    steps: &dyn Steps,
) -> Result<Half, ReconcileError> {
    let mut found = Plan::default();
    let make = |conf: &crate::conf::Conf| {
        found = plan(wanted, &conf.seen(), ours);
        if found.refused.is_empty() {
            return conf.reconciled_keeping(wanted, ours, keep);
        }
        let refused: BTreeSet<PublicKey> = found.refused.iter().copied().collect();
        let rest: Vec<Peer> = wanted.iter().filter(|peer| !refused.contains(&peer.public_key)).cloned().collect();
        conf.reconciled_keeping(&rest, ours, keep)
    };
    let paths = target.conf();
    let written = match target {
        Target::File(_) => file::update_with(paths, LOCK_WAIT, make, steps)?,
        // What comes up with the interface: a file of peers alone in its place would bring up none.
        Target::Both { .. } => file::update_of_interface(paths, LOCK_WAIT, make, steps)?,
    };

    let conf = file::read(&paths.file)?;
    let (seen, outside) = (conf.seen(), conf.outside());
    let mut rest = plan(wanted, &seen, ours);
    // Outside of the fence nothing is ours to change, and what shall stay is not left over.
    rest.change.retain(|peer| !outside.contains(&peer.public_key));
    rest.remove.retain(|key| !outside.contains(key) && !keep.holds(key));
    let theirs = left_alone(&seen, wanted, ours, &outside);
    let report = report(found, seen, written.changed, known_outside(&outside, wanted, ours), theirs);
    Ok(Half::new(rest, report))
}

async fn bring_interface(
    interface: &str,
    tool: &Tool,
    wanted: &[Peer],
    ours: &BTreeSet<PublicKey>,
    steps: &dyn Steps,
    of_file: Half,
) -> Result<Report, ReconcileError> {
    let before = tool.show_with(interface, steps).await?;
    let mut found = plan(wanted, &before, ours);
    // What the file could not get would be gone after the next start, and may be somebody else's.
    found.add.retain(|peer| !of_file.missing.contains(&peer.public_key));
    found.change.retain(|peer| !of_file.missing.contains(&peer.public_key));
    let is_done = found.add.is_empty() && found.change.is_empty() && found.remove.is_empty();
    let (after, failed) = if is_done { (before, None) } else { bring(interface, tool, &found, steps).await? };

    let rest = plan(wanted, &after, ours);
    let mut theirs = left_alone(&after, wanted, ours, &BTreeSet::new());
    theirs.extend(of_file.report.theirs);
    let report = report(found, after, of_file.report.file_changed, of_file.report.outside, theirs);
    let mut whole = Half::new(rest, report);
    whole.missing.extend(of_file.missing);
    whole.left.extend(of_file.left);
    whole.failed = failed.map(Box::new);
    whole.end()
}

/// Has the tool do what was found, and looks again: also after it refused something, because the rest may be done.
async fn bring(
    interface: &str,
    tool: &Tool,
    found: &Plan,
    steps: &dyn Steps,
) -> Result<(Seen, Option<ToolError>), ReconcileError> {
    let failed = match tool.apply_with(interface, found, steps).await {
        Ok(()) => None,
        Err(error) if error.ends_all() => return Err(error.into()),
        Err(error) => Some(error),
    };
    match (tool.show_with(interface, steps).await, failed) {
        (Ok(after), failed) => Ok((after, failed)),
        (Err(_), Some(failed)) => Err(failed.into()),
        (Err(error), None) => Err(error.into()),
    }
}

fn report(
    found: Plan,
    seen: Seen,
    file_changed: bool,
    outside: Vec<PublicKey>,
    theirs: BTreeSet<(PublicKey, IpNet)>,
) -> Report {
    Report {
        seen,
        file_changed,
        added: keys(&found.add),
        changed: keys(&found.change),
        removed: found.remove,
        foreign: found.foreign,
        outside,
        theirs: theirs.into_iter().collect(),
    }
}

/// The networks of peers that are not wanted and that nobody takes away: foreign ones, and those that stand outside of the
/// fence.
fn left_alone(
    seen: &Seen,
    wanted: &[Peer],
    ours: &BTreeSet<PublicKey>,
    outside: &BTreeSet<PublicKey>,
) -> BTreeSet<(PublicKey, IpNet)> {
    let wanted: BTreeSet<PublicKey> = wanted.iter().map(|peer| peer.public_key).collect();
    let stays = |key: &PublicKey| !wanted.contains(key) && (!ours.contains(key) || outside.contains(key));
    let peers = seen.peers.values().filter(|peer| stays(&peer.public_key));
    peers.flat_map(|peer| peer.allowed.iter().map(|network| (peer.public_key, network.trunc()))).collect()
}

fn keys(peers: &[Peer]) -> Vec<PublicKey> {
    peers.iter().map(|peer| peer.public_key).collect()
}

fn known_outside(outside: &BTreeSet<PublicKey>, wanted: &[Peer], ours: &BTreeSet<PublicKey>) -> Vec<PublicKey> {
    let wanted: BTreeSet<PublicKey> = wanted.iter().map(|peer| peer.public_key).collect();
    outside.iter().filter(|key| ours.contains(*key) || wanted.contains(*key)).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::file::PLACES;
    use crate::peer::testing::{key, peer, peers};
    use crate::tool::fake::Fake;

    const OLD: &str = "[Interface]\nListenPort = 51820\n\n[Peer]\nPublicKey = ";

    struct Server {
        folder: tempfile::TempDir,
        fake: Fake,
        target: Target,
        ours: BTreeSet<PublicKey>,
    }

    impl Server {
        /// A server whose owner has a peer of his own, number 900, in file and interface.
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let conf = ConfPath { file: folder.path().join("wg0.conf"), lock: folder.path().join("wg0.lock") };
            std::fs::write(&conf.file, format!("{OLD}{}\n", key(900))).unwrap();
            let fake = Fake::new();
            let tool = fake.tool();
            tool.apply("wg0", &Plan { add: peers([900]), ..Plan::default() }).await.unwrap();
            let target = Target::Both { conf, interface: "wg0".into(), tool };
            Self { folder, fake, target, ours: (0..100).map(key).collect() }
        }

        async fn run(&self, wanted: &[Peer]) -> Result<Report, ReconcileError> {
            reconcile(&self.target, wanted, &self.ours).await
        }

        async fn is_right(&self, wanted: &[Peer]) -> bool {
            drift(&self.target, wanted, &self.ours).await.unwrap().is_none()
        }

        fn calls(&self, verb: &str) -> usize {
            self.fake.args().iter().filter(|line| line.starts_with(verb)).count()
        }
    }

    #[tokio::test]
    async fn file_and_interface_become_what_is_wanted_and_the_owners_own_peer_stays() {
        let server = Server::new().await;
        let report = server.run(&peers([1, 2, 3])).await.unwrap();
        assert!(report.file_changed);
        assert_eq!(report.added, [key(1), key(2), key(3)]);
        assert_eq!(report.foreign, [key(900)]);
        assert_eq!(report.seen.peers.len(), 4);
        assert!(report.outside.is_empty());
        assert!(server.is_right(&peers([1, 2, 3])).await);

        let mut wanted = peers([2, 3, 4]);
        wanted[0].preshared = None;
        let report = server.run(&wanted).await.unwrap();
        assert_eq!((report.added, report.changed, report.removed), (vec![key(4)], vec![key(2)], vec![key(1)]));
        assert!(report.seen.peers.contains_key(&key(900)));
        assert!(server.is_right(&wanted).await);
        let text = std::fs::read_to_string(&server.target.conf().file).unwrap();
        assert!(text.starts_with(&format!("{OLD}{}\n# semel: begin", key(900))));
    }

    #[tokio::test]
    async fn with_nothing_to_do_it_only_looks() {
        let server = Server::new().await;
        server.run(&peers([1, 2])).await.unwrap();
        let (added, shown) = (server.calls("addconf"), server.calls("show"));
        let report = server.run(&peers([2, 1])).await.unwrap();
        assert!(!report.file_changed && report.added.is_empty() && report.removed.is_empty());
        assert_eq!((server.calls("addconf"), server.calls("set"), server.calls("show")), (added, 0, shown + 1));
    }

    #[tokio::test]
    async fn a_tool_that_ends_well_without_doing_its_work_is_found_out() {
        let server = Server::new().await;
        server.run(&peers([1])).await.unwrap();
        server.fake.lies("addconf");
        server.fake.lies("set");
        let error = server.run(&peers([2])).await.unwrap_err();
        let told = error.to_string();
        let ReconcileError::NotDone { missing, left, report, failed } = error else { panic!("{told}") };
        assert!(failed.is_none());
        assert_eq!((missing, left), (vec![key(2)], vec![key(1)]));
        assert!(report.seen.peers.contains_key(&key(1)));
        assert!(told.contains("1 peers are missing or different and 1 are still there, first "), "{told}");

        server.fake.works("addconf");
        server.fake.works("set");
        server.run(&peers([2])).await.unwrap();
        assert!(server.is_right(&peers([2])).await);
    }

    #[tokio::test]
    async fn whatever_the_tool_does_wrong_the_next_run_mends() {
        let server = Server::new().await;
        server.run(&peers([1])).await.unwrap();
        for (n, verb) in ["show", "addconf", "set"].into_iter().enumerate() {
            let wanted = peers([10 + u32::try_from(n).unwrap()]);
            server.fake.fails(verb, "Unable to modify interface: No such device");
            let error = server.run(&wanted).await.unwrap_err().to_string();
            assert!(error.contains("No such device"), "{verb}: {error}");
            server.fake.works(verb);
            server.run(&wanted).await.unwrap();
            assert!(server.is_right(&wanted).await, "{verb}");
        }
        server.fake.prints_garbage("show");
        assert!(matches!(server.run(&peers([1])).await, Err(ReconcileError::Tool(ToolError::Garbage { .. }))));
        server.fake.works("show");
        server.run(&peers([1])).await.unwrap();
        assert!(server.is_right(&peers([1])).await);
    }

    #[tokio::test]
    async fn one_peer_that_the_tool_refuses_is_named_and_all_others_get_in() {
        let server = Server::new().await;
        server.fake.refuses(&key(2));
        let error = server.run(&peers([1, 2, 3])).await.unwrap_err();
        let told = error.to_string();
        assert!(told.contains("Invalid argument"), "{told}");
        let ReconcileError::NotDone { missing, left, report, .. } = error else { panic!("{told}") };
        assert_eq!((missing, left), (vec![key(2)], vec![]));
        assert!(report.seen.peers.contains_key(&key(1)) && report.seen.peers.contains_key(&key(3)));
    }

    #[tokio::test]
    async fn an_address_of_a_foreign_peer_stays_with_it_in_file_and_interface() {
        let server = Server::new().await;
        let file = &server.target.conf().file;
        // One stands in the file alone, the other on the interface alone.
        std::fs::write(file, format!("{OLD}{}\nAllowedIPs = 10.8.0.1/32\n", key(900))).unwrap();
        let mut other = peer(901);
        other.allowed = vec!["10.8.0.2/32".parse().unwrap()];
        let tool = server.fake.tool();
        tool.apply("wg0", &Plan { add: vec![other], ..Plan::default() }).await.unwrap();

        let error = server.run(&peers([1, 2, 3])).await.unwrap_err();
        let told = error.to_string();
        let ReconcileError::NotDone { missing, left, report, failed } = error else { panic!("{told}") };
        assert_eq!((missing, left), (vec![key(1), key(2)], vec![]));
        assert!(failed.is_none());
        assert!(report.seen.peers.contains_key(&key(3)) && !report.seen.peers.contains_key(&key(1)));
        let theirs: Vec<String> = report.theirs.iter().map(|(_, network)| network.to_string()).collect();
        assert!(theirs.contains(&"10.8.0.1/32".to_owned()) && theirs.contains(&"10.8.0.2/32".to_owned()), "{theirs:?}");
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!text.contains(&key(1).to_string()) && text.contains(&key(3).to_string()));
    }

    #[tokio::test]
    async fn what_shall_be_kept_stays_in_the_fence_and_on_the_interface() {
        let server = Server::new().await;
        server.run(&peers([1, 2, 3])).await.unwrap();
        let file = &server.target.conf().file;
        let before = std::fs::read_to_string(file).unwrap();
        let nobody: Arc<dyn Steps> = Arc::new(NoSteps);
        let ours: BTreeSet<PublicKey> = [key(1)].into_iter().collect();
        let report = reconcile_keeping(&server.target, &peers([1]), &ours, &Keep::Everybody, &nobody).await.unwrap();
        assert!(!report.file_changed && report.removed.is_empty());
        assert_eq!(std::fs::read_to_string(file).unwrap(), before);
        assert!(report.seen.peers.contains_key(&key(2)) && report.seen.peers.contains_key(&key(3)));

        let some = Keep::These([key(2)].into_iter().collect());
        reconcile_keeping(&server.target, &peers([1]), &[key(1), key(3)].into_iter().collect(), &some, &nobody)
            .await
            .unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains(&key(2).to_string()) && !text.contains(&key(3).to_string()));
    }

    #[tokio::test]
    async fn a_glance_compares_no_secrets() {
        let server = Server::new().await;
        server.run(&peers([1, 2])).await.unwrap();
        let mut wanted = peers([1, 2]);
        wanted.iter_mut().for_each(|peer| peer.preshared = None);
        let seen = glance(&server.target, &wanted, &server.ours).await.unwrap();
        assert!(seen.is_none());
        assert_eq!(seen.interface.unwrap().peers.len(), 3);
        assert!(!drift(&server.target, &wanted, &server.ours).await.unwrap().is_none());
        assert!(!glance(&server.target, &wanted[..1], &server.ours).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn drift_is_shown_and_healed() {
        let server = Server::new().await;
        server.run(&peers([1, 2])).await.unwrap();
        let tool = server.fake.tool();
        tool.apply("wg0", &Plan { remove: vec![key(1)], add: peers([50, 901]), ..Plan::default() }).await.unwrap();
        let file = &server.target.conf().file;
        let touched = std::fs::read_to_string(file).unwrap().replace("10.8.0.2/32", "10.8.0.77/32");
        std::fs::write(file, touched).unwrap();

        let drift = drift(&server.target, &peers([1, 2]), &server.ours).await.unwrap();
        let of_interface = drift.plan_interface.unwrap();
        assert_eq!((keys(&of_interface.add), of_interface.remove), (vec![key(1)], vec![key(50)]));
        assert_eq!(of_interface.foreign, [key(900), key(901)]);
        assert_eq!(keys(&drift.plan_file.change), [key(2)]);
        assert!(!drift.whole);

        server.run(&peers([1, 2])).await.unwrap();
        assert!(server.is_right(&peers([1, 2])).await);
    }

    #[tokio::test]
    async fn a_peer_of_ours_that_was_moved_out_of_the_fence_is_reported_and_left() {
        let server = Server::new().await;
        let file = &server.target.conf().file;
        let moved = format!("{OLD}{}\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.8.0.1/32\n", key(900), key(1));
        std::fs::write(file, &moved).unwrap();
        let report = server.run(&peers([1])).await.unwrap();
        assert_eq!((report.added, report.outside), (vec![key(1)], vec![key(1)]));
        assert_eq!(std::fs::read_to_string(file).unwrap(), moved);

        // Revoked: off the interface at once, in the file a person has to delete it.
        let report = server.run(&[]).await.unwrap();
        assert_eq!((report.removed, report.outside), (vec![key(1)], vec![key(1)]));
        assert!(!report.seen.peers.contains_key(&key(1)));
    }

    #[tokio::test]
    async fn a_file_alone_is_enough() {
        let server = Server::new().await;
        let target = Target::File(server.target.conf().clone());
        let report = reconcile(&target, &peers([1, 2]), &server.ours).await.unwrap();
        assert_eq!((report.added, report.seen.peers.len()), (vec![key(1), key(2)], 3));
        let report = reconcile(&target, &[peer(2)], &server.ours).await.unwrap();
        assert_eq!((report.removed, report.seen.peers.len()), (vec![key(1)], 2));
        assert_eq!(server.calls("show"), 0);
        assert_eq!(
            drift(&target, &[peer(2)], &server.ours).await.unwrap().plan_interface.map(|plan| plan.is_empty()),
            None
        );
        assert!(server.folder.path().join("wg0.lock").exists());
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused_and_the_interface_is_not_called() {
        let server = Server::new().await;
        std::fs::write(&server.target.conf().file, "# semel: begin\n").unwrap();
        let error = server.run(&peers([1])).await.unwrap_err();
        assert!(matches!(error, ReconcileError::File(FileError::Conf { .. })), "{error}");
        assert_eq!(server.calls("show"), 0);
        assert!(drift(&server.target, &[], &server.ours).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_vanished_or_lost_its_interface_is_not_made_anew() {
        let server = Server::new().await;
        server.run(&peers([1])).await.unwrap();
        let file = &server.target.conf().file;
        let before = std::fs::read(file).unwrap();
        std::fs::remove_file(file).unwrap();
        let shown = server.calls("show");
        let error = server.run(&peers([1, 2])).await.unwrap_err();
        assert!(matches!(error, ReconcileError::File(FileError::NoInterface { .. })), "{error}");
        assert!(error.to_string().contains("is not there any more"), "{error}");
        assert!(!file.exists() && server.calls("show") == shown, "nothing is touched");
        assert!(drift(&server.target, &peers([1]), &server.ours).await.is_err(), "and no plan promises it");

        std::fs::write(file, format!("[Peer]\nPublicKey = {}\n", key(900))).unwrap();
        let error = server.run(&peers([1, 2])).await.unwrap_err();
        assert!(error.to_string().contains("has no [Interface]"), "{error}");
        std::fs::write(file, before).unwrap();
        server.run(&peers([1, 2])).await.unwrap();
        assert!(server.is_right(&peers([1, 2])).await);

        // A file without an interface is made where there is none: whoever loads it knows why.
        let alone =
            ConfPath { file: server.folder.path().join("new.conf"), lock: server.folder.path().join("new.lock") };
        reconcile(&Target::File(alone.clone()), &peers([1]), &server.ours).await.unwrap();
        assert!(alone.file.exists());
    }

    struct FailAt(&'static str);

    impl Steps for FailAt {
        fn at(&self, place: &'static str) -> io::Result<()> {
            if place == self.0 { Err(io::Error::other("broken here")) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn after_a_failure_at_any_place_the_next_run_brings_what_is_wanted() {
        for place in PLACES {
            let server = Server::new().await;
            server.run(&peers([1, 2])).await.unwrap();
            let steps: Arc<dyn Steps> = Arc::new(FailAt(place));
            let broken = reconcile_with(&server.target, &peers([2, 3]), &server.ours, &steps).await;
            assert!(broken.is_err_and(|error| error.to_string().contains("broken here")), "{place}");
            server.run(&peers([2, 3])).await.unwrap();
            assert!(server.is_right(&peers([2, 3])).await, "{place}");
        }
    }
}
