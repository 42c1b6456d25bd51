//! Where a run lives: the programs that it measures, its scratch folder, and the processes that it started.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// The paths that `bench/run` prepared.
#[derive(Clone)]
pub struct Place {
    /// The scratch folder: databases, logs, sockets.
    pub work: PathBuf,
    /// The release program.
    pub semel: PathBuf,
    /// The shim that slows syncs down.
    pub shim: PathBuf,
    /// A Python with the usual way's packages.
    pub python: PathBuf,
    /// The folder of the usual way.
    pub usual: PathBuf,
    /// The folder of `initdb` and `postgres`.
    pub pg_bin: PathBuf,
    /// Who runs PostgreSQL when we are root: user and group.
    pub pg_user: Option<(u32, u32)>,
}

fn told(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: start the benchmark with bench/run"))
}

impl Place {
    /// Reads what `bench/run` put into the environment.
    pub fn from_environment() -> Result<Place> {
        let user = told("BENCH_PG_USER")?;
        let pg_user = match user.split_once(':') {
            Some((uid, gid)) => Some((uid.parse()?, gid.parse()?)),
            None => None,
        };
        Ok(Place {
            work: told("BENCH_WORK")?.into(),
            semel: told("BENCH_SEMEL")?.into(),
            shim: told("BENCH_SHIM")?.into(),
            python: told("BENCH_PYTHON")?.into(),
            usual: told("BENCH_USUAL")?.into(),
            pg_bin: told("BENCH_PG_BIN")?.into(),
            pg_user,
        })
    }

    /// A command whose environment holds nothing but what is set on it, and the mark by which `bench/run` knows its own.
    pub fn bare(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("BENCH_WORK", &self.work).current_dir(&self.work);
        for name in ["PATH", "HOME", "LANG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// The same, with every sync of the program 2 ms slower if wanted.
    pub fn bare_with_disk(&self, program: &Path, slow: bool) -> Command {
        let mut command = self.bare(program);
        if slow {
            command.env("LD_PRELOAD", &self.shim);
        }
        command
    }
}

/// A free port of loopback. Somebody else could take it before we do; nobody on a quiet machine does.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A process of ours; dropping it kills it.
pub struct Kept {
    name: &'static str,
    child: Child,
    pid: u32,
}

impl Kept {
    /// Starts `command`; what it says goes to `NAME.log` in the scratch folder.
    pub fn spawn(place: &Place, name: &'static str, mut command: Command) -> Result<Kept> {
        let open = |file: String| std::fs::File::options().create(true).append(true).open(place.work.join(file));
        let log = open(format!("{name}.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        writeln!(open("pids".to_owned())?, "{pid}")?;
        Ok(Kept { name, child, pid })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails when the process has ended by itself.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself: {status}; its log is printed below", self.name),
        }
    }

    /// Waits until the process ends by itself; whether it ended well. One that takes longer is killed.
    pub async fn ended(mut self, longest: Duration) -> Result<bool> {
        match timeout(longest, self.child.wait()).await {
            Ok(status) => Ok(status?.success()),
            Err(_) => {
                self.child.kill().await?;
                bail!("{} did not end within {longest:?}", self.name)
            }
        }
    }

    /// Asks the process to stop and waits until it did.
    pub async fn stop(mut self, signal: &str) -> Result<()> {
        let pid = self.pid.to_string();
        let asked = Command::new("kill").args(["-s", signal, pid.as_str()]).status().await?;
        if !asked.success() {
            bail!("{} could not be asked to stop", self.name);
        }
        match timeout(Duration::from_secs(60), self.child.wait()).await {
            Ok(ended) => {
                ended?;
                Ok(())
            }
            Err(_) => {
                self.child.kill().await?;
                bail!("{} did not stop within a minute", self.name)
            }
        }
    }
}

/// Waits until `holds` answers true; fails with `what` after `longest`.
pub async fn eventually(what: &str, longest: Duration, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let end = tokio::time::Instant::now() + longest;
    while !holds().await? {
        if tokio::time::Instant::now() > end {
            bail!("it did not come true within {longest:?} that {what}");
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
