//! Broken on purpose: does the suite notice the mistakes of real bots?
//!
//! `broken/NN-name.patch` is one small change each, the mistake of somebody's bot put into this program. Its head says what
//! the mistake is, what becomes of a bot that makes it, and which test must fail with it. Each of these tests is run first
//! without any mistake: *caught* means green before and red after. Then a patch is put into a copy of the repository, its test
//! is run, and the patch is taken back. A mistake that no test notices is *missed*, and so is a hole in the suite.
//!
//! Mistakes in one crate follow each other, because each change of the crate costs a build of all that stands on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use semel_kernel::clock::Stopwatch;
use semel_prove::report::{Figure, Options};

/// How long the compiler may take.
const BUILD: Duration = Duration::from_secs(40 * 60);
/// How long a test may take. One that hangs with the mistake has noticed it, too.
const TEST: Duration = Duration::from_secs(15 * 60);
/// So often a test may run before its mistake counts as missed.
const RUNS: usize = 3;
/// How many mistakes the small campaign tries; which ones, the seed says.
const FEW: usize = 2;

/// A mistake on paper.
struct Patch {
    name: String,
    path: PathBuf,
    mistake: String,
    bot: String,
    /// The words of the command that must fail.
    caught_by: Vec<String>,
    /// The folder of the crate that it changes.
    place: String,
}

/// What became of a mistake.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The program builds and the test fails.
    Caught(String),
    /// The test passes all the same.
    Missed(String),
    /// The patch does not apply or does not build, or its test fails without it, too: it proves nothing.
    Worthless(String),
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All patches, in the order of their numbers.
fn patches() -> anyhow::Result<Vec<Patch>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("broken");
    let mut patches = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "patch") {
            patches.push(Patch::read(path)?);
        }
    }
    patches.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(patches)
}

/// The order in which they are tried: a crate after the other, and in it what the same build can test.
fn by_crate(patches: &mut [Patch]) {
    patches.sort_by(|one, other| {
        let key = |patch: &Patch| (patch.place.clone(), patch.command().0.to_vec(), patch.name.clone());
        key(one).cmp(&key(other))
    });
}

impl Patch {
    fn read(path: PathBuf) -> anyhow::Result<Patch> {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let head = |name: &str| {
            let line =
                text.lines().take_while(|line| !line.starts_with("diff ")).find_map(|line| line.strip_prefix(name));
            let told = line.map(str::trim).filter(|told| !told.is_empty());
            told.map(str::to_owned).with_context(|| format!("{} does not say `{name}`", path.display()))
        };
        let caught_by = head("Caught-by:")?.split_whitespace().map(str::to_owned).collect();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let changed = text.lines().find_map(|line| line.strip_prefix("diff --git a/")).unwrap_or_default();
        let place = changed.split('/').take(2).collect::<Vec<_>>().join("/");
        Ok(Patch { name, mistake: head("Mistake:")?, bot: head("Bot:")?, caught_by, path, place })
    }

    /// The words behind `cargo test` that say which build runs, and the name of the test.
    fn command(&self) -> (&[String], &str) {
        match self.caught_by.as_slice() {
            [cargo, test, build @ .., name] if cargo == "cargo" && test == "test" => (build, name.as_str()),
            _ => (&[], ""),
        }
    }
}

/// The campaign: a few mistakes, or all of them.
///
/// # Errors
/// A sentence when git or cargo is missing, or when the repository cannot be copied.
///
/// It waits for compilers and awaits nothing.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let mut chosen: Vec<Patch> =
        patches()?.into_iter().filter(|patch| options.wants(&format!("broken {}", patch.name))).collect();
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    for program in ["git", "cargo"] {
        let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ensure!(
            there.is_ok_and(|status| status.success()),
            "{program} is missing: broken variants are made with git and built with cargo"
        );
    }
    if options.small && options.only.is_none() {
        fastrand::Rng::with_seed(options.seed ^ 0xb20c).shuffle(&mut chosen);
        chosen.truncate(FEW);
    }
    by_crate(&mut chosen);
    let bench = Bench::set_up(&options.work.join("broken"))?;
    let (green, red) = bench.without_mistakes(&chosen)?;
    let (mut caught, mut troubles, mut told) = (0, Vec::new(), Vec::new());
    for (done, patch) in chosen.iter().enumerate() {
        let watch = Stopwatch::start();
        let verdict = match red.get(&patch.caught_by) {
            Some(why) => Verdict::Worthless(format!("its test fails without the mistake, too: {why}")),
            None => bench.try_out(patch)?,
        };
        let seconds = watch.elapsed().as_secs();
        let word = match verdict {
            Verdict::Caught(how) => {
                caught += 1;
                format!("caught {how}")
            }
            Verdict::Missed(how) => {
                troubles.push(format!(
                    "{} is missed ({how}): {}. {} Run: {}",
                    patch.name,
                    patch.mistake,
                    patch.bot,
                    patch.caught_by.join(" ")
                ));
                "MISSED".to_owned()
            }
            Verdict::Worthless(why) => {
                troubles.push(format!("{} proves nothing: {why}", patch.name));
                "worthless".to_owned()
            }
        };
        let (done, left) = (done + 1, chosen.len() - done - 1);
        crate::say(&format!(
            "{done} of {}, {left} left: {} ({}): {word}, {seconds} s",
            chosen.len(),
            patch.name,
            patch.place
        ));
        told.push(Figure::told(format!("broken: {}", patch.name), format!("{word}, {seconds} s")));
    }
    let of = u64::try_from(chosen.len())?;
    let tests = (green + red.len()) as u64;
    let failing = red.iter().map(|(words, why)| format!("{}: {why}", words.join(" "))).collect();
    let mut figures = vec![
        Figure::all_of("their tests are green without a mistake", green as u64, tests, failing),
        Figure::all_of("broken variants caught", caught, of, troubles),
    ];
    figures.extend(told);
    Ok(figures)
}

/// The copy that mistakes are put into. Removed at its end; the built packages stay for the next campaign.
struct Bench {
    folder: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

impl Bench {
    /// Copies everything that the repository holds or would take, as it lies there now.
    fn set_up(folder: &Path) -> anyhow::Result<Bench> {
        let tree = folder.join("tree");
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
        }
        fs::create_dir_all(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
        let root = root().canonicalize().context("the repository is not where it was built")?;
        let bench = Bench { folder: folder.to_owned(), tree: tree.canonicalize()?, target: root.join("target/broken") };
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&root)
            .output()
            .context("git cannot be started")?;
        ensure!(listed.status.success(), "git cannot list the repository: {}", last_lines(&listed.stderr));
        for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = String::from_utf8(name.to_vec()).context("a file's name is no text")?;
            let (from, to) = (root.join(&name), bench.tree.join(&name));
            // Listed and not there: it was deleted and not committed yet.
            if !from.is_file() {
                continue;
            }
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(&from, &to).with_context(|| format!("cannot copy {name}"))?;
        }
        // A repository of its own: inside another one, git would look for the paths of that one.
        bench.git(&["init", "--quiet"]).map_err(anyhow::Error::msg)?;
        Ok(bench)
    }

    fn git(&self, args: &[&str]) -> Result<(), String> {
        let output = Command::new("git").args(args).current_dir(&self.tree).output();
        let output = output.map_err(|error| format!("git cannot be started: {error}"))?;
        if output.status.success() { Ok(()) } else { Err(last_lines(&output.stderr)) }
    }

    /// Runs the test of each patch on the tree as it is, all tests of one build together. Answers how many are green, and
    /// what is wrong with each other one, by its command.
    fn without_mistakes(&self, patches: &[Patch]) -> anyhow::Result<(usize, BTreeMap<Vec<String>, String>)> {
        let mut builds: BTreeMap<&[String], BTreeSet<&str>> = BTreeMap::new();
        for patch in patches {
            let (build, name) = patch.command();
            ensure!(!name.is_empty(), "{}: only `cargo test …` with the name of a test is run", patch.name);
            builds.entry(build).or_default().insert(name);
        }
        let (mut green, mut red, all) = (0, BTreeMap::new(), builds.len());
        for (done, (build, names)) in builds.into_iter().enumerate() {
            let watch = Stopwatch::start();
            let (built, output) = self.cargo(&["--no-run"], build, BUILD)?;
            let mut together = build.to_vec();
            together.push("--".to_owned());
            together.extend(names.iter().map(|name| (*name).to_owned()));
            let (passed, output) =
                if built == Some(true) { self.cargo(&[], &together, TEST * 2)? } else { (Some(false), output) };
            let mut well = 0;
            for name in &names {
                match self.is_green(build, name, passed, &output)? {
                    Ok(()) => well += 1,
                    Err(why) => {
                        let words = ["cargo".to_owned(), "test".to_owned()].into_iter().chain(build.iter().cloned());
                        red.insert(words.chain([(*name).to_owned()]).collect(), why);
                    }
                }
            }
            green += well;
            let (left, seconds) = (all - done - 1, watch.elapsed().as_secs());
            let build = build.join(" ");
            crate::say(&format!(
                "without a mistake, {build}: {well} of {} tests green, {seconds} s, {left} builds left",
                names.len()
            ));
        }
        Ok((green, red))
    }

    /// Whether a test that ran among others is green; one that they may have harmed is run once more by itself.
    fn is_green(
        &self,
        build: &[String],
        name: &str,
        passed: Option<bool>,
        output: &[u8],
    ) -> anyhow::Result<Result<(), String>> {
        let text = String::from_utf8_lossy(output);
        let ran = fates(&text, name);
        if ran.contains(&"ok") && (passed == Some(true) || ran.iter().all(|fate| *fate == "ok")) {
            return Ok(Ok(()));
        }
        let mut words = build.to_vec();
        words.push(name.to_owned());
        let (passed, output) = self.cargo(&[], &words, TEST)?;
        let ran = !fates(&String::from_utf8_lossy(&output), name).is_empty();
        Ok(match passed {
            Some(true) if ran => Ok(()),
            Some(true) => Err("no test of this name runs".to_owned()),
            Some(false) => Err(last_lines(&output)),
            None => Err(format!("it does not end within {} minutes", TEST.as_secs() / 60)),
        })
    }

    fn try_out(&self, patch: &Patch) -> anyhow::Result<Verdict> {
        let path = patch.path.to_string_lossy();
        // One line of context is enough: the code around a mistake may move.
        if let Err(why) = self.git(&["apply", "-C1", "--whitespace=nowarn", path.as_ref()]) {
            return Ok(Verdict::Worthless(format!("the patch does not apply any more: {why}")));
        }
        let verdict = self.judge(patch);
        if let Err(why) = self.git(&["apply", "-R", "-C1", "--whitespace=nowarn", path.as_ref()]) {
            bail!("{} cannot be taken back: {why}", patch.name);
        }
        verdict
    }

    fn judge(&self, patch: &Patch) -> anyhow::Result<Verdict> {
        let rest = patch.caught_by.get(2..).unwrap_or_default();
        let (built, output) = self.cargo(&["--no-run"], rest, BUILD)?;
        if built != Some(true) {
            return Ok(Verdict::Worthless(format!("it does not build: {}", last_lines(&output))));
        }
        let (mut passed, mut output) = self.cargo(&[], rest, TEST)?;
        // A mistake that needs two at the same moment shows itself in most runs and not in every one.
        for _ in 1..RUNS {
            if passed == Some(true) {
                (passed, output) = self.cargo(&[], rest, TEST)?;
            }
        }
        Ok(match passed {
            None => Verdict::Caught(format!("by its time limit of {} minutes", TEST.as_secs() / 60)),
            Some(false) => Verdict::Caught(format!("by {}", patch.command().1)),
            Some(true) => Verdict::Missed(last_lines(&output)),
        })
    }

    /// Runs `cargo test` with these words; whether it went well, `None` when it took too long, and all that it said.
    fn cargo(&self, more: &[&str], words: &[String], limit: Duration) -> anyhow::Result<(Option<bool>, Vec<u8>)> {
        let log = self.folder.join("log");
        let out = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut command = Command::new("cargo");
        command.arg("test").args(more).args(words).current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        // Words of the cargo that runs us are not meant for this one.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|begin| name.starts_with(begin)) {
                command.env_remove(&*name);
            }
        }
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let mut child = command.spawn().context("cargo cannot be started")?;
        let watch = Stopwatch::start();
        let passed = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status.success());
            }
            if watch.elapsed() > limit {
                // The whole group: cargo's own children hold the log and would go on.
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-9", "--", &group]).status();
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        Ok((passed, fs::read(&log)?))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How every test whose name holds `name` ended, by what the test programs wrote: `ok`, `FAILED`, `ignored`. Empty when none ran.
fn fates<'o>(output: &'o str, name: &str) -> Vec<&'o str> {
    let tests = output.lines().filter_map(|line| line.trim().strip_prefix("test ")?.rsplit_once(" ... "));
    tests.filter(|(test, _)| test.contains(name)).map(|(_, fate)| fate.split(' ').next().unwrap_or(fate)).collect()
}

/// The end of an output, on one line.
fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let told = lines[lines.len().saturating_sub(6)..].join(" | ");
    told.chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use semel_kernel::store::StoreError;
    use semel_kernel::testing::TestStore;

    use super::*;

    #[test]
    fn there_are_mistakes_enough_and_each_says_what_it_is() {
        let patches = patches().expect("the patches can be read");
        assert!(patches.len() >= 25, "only {} patches", patches.len());
        for (patch, number) in patches.iter().zip(1..) {
            assert!(patch.name.starts_with(&format!("{number:02}-")), "{} is out of order", patch.name);
            assert_eq!(patch.caught_by[..2], ["cargo", "test"], "{}", patch.name);
        }
    }

    /// Every change from one crate to another builds both anew.
    #[test]
    fn mistakes_in_one_crate_follow_each_other() {
        let mut patches = patches().expect("the patches can be read");
        by_crate(&mut patches);
        let crates: BTreeSet<&str> = patches.iter().map(|patch| patch.place.as_str()).collect();
        let changes = patches.windows(2).filter(|pair| pair[0].place != pair[1].place).count();
        assert_eq!(changes + 1, crates.len());
        assert!(crates.iter().all(|place| root().join(place).join("Cargo.toml").is_file()), "{crates:?}");
    }

    #[test]
    fn a_test_is_green_when_it_ran_and_all_of_its_kind_are() {
        let output = "running 3 tests\ntest a::key_one::on_sqlite ... ok\ntest a::key_one::on_postgres ... FAILED\n\
            test a::other ... ok\ntest a::key_two has been running for over 60 seconds\ntest result: FAILED. 2 passed\n";
        assert_eq!(fates(output, "key_one"), ["ok", "FAILED"]);
        assert_eq!(fates(output, "other"), ["ok"]);
        assert!(fates(output, "key_two").is_empty() && fates(output, "result").is_empty());
    }

    /// A patch that does not apply proves nothing: whoever changes the code around a mistake changes the patch with it.
    #[test]
    fn every_mistake_can_still_be_made() {
        for patch in patches().expect("the patches can be read") {
            let path = patch.path.to_string_lossy();
            let check =
                Command::new("git").args(["apply", "--check", "-C1", path.as_ref()]).current_dir(root()).output();
            let check = check.expect("git can be started");
            assert!(check.status.success(), "{}: {}", patch.name, String::from_utf8_lossy(&check.stderr));
        }
    }

    /// The test that shall notice a mistake is there under its name.
    #[test]
    fn every_mistake_names_a_test_that_exists() {
        fn sources(folder: &Path, text: &mut String) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    sources(&path, text);
                } else if path.extension().is_some_and(|kind| kind == "rs") {
                    text.push_str(&fs::read_to_string(&path).unwrap_or_default());
                }
            }
        }
        let mut text = String::new();
        for folder in ["crates", "tools/prove/src"] {
            sources(&root().join(folder), &mut text);
        }
        for patch in patches().expect("the patches can be read") {
            let filter = patch.caught_by.last().cloned().unwrap_or_default();
            let filter = filter.trim_end_matches("_on_sqlite").to_owned();
            // A test is a function; a target of the fuzzer is a line of its table.
            let there = text.contains(&format!("fn {filter}")) || text.contains(&format!("    {filter} = Door::"));
            assert!(there, "{} names the test {filter}, which does not exist", patch.name);
        }
    }

    /// SQLite's numbers: 2 is `full`, 1 is `normal`, which may lose the last commits in a power cut.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_database_syncs_every_commit() {
        let t = TestStore::sqlite(semel::ROOMS).await;
        let level = t.store.write("test.sync", |tx| tx.one("pragma synchronous", &[])?.get::<i64>(0));
        assert_eq!(level.await, Ok::<i64, StoreError>(2));
    }
}
