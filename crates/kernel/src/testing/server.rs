//! A PostgreSQL of our own: no service, no port, no container, and nothing left behind.
//!
//! It listens on a Unix socket in a private folder, and nowhere else unless a test is about that. A guardian process
//! holds the reading end of a pipe from us: when this process is gone, in whatever way, the pipe closes, and the
//! guardian stops the server and removes the folder.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use crate::clock::Stopwatch;
use crate::store::StoreUrl;

const MISSING: &str = "the tests need PostgreSQL's server programs: `apt-get install postgresql` (its service is not \
    needed), or set SEMEL_TEST_PG_BINDIR to the folder that holds initdb and postgres";

/// Nothing here outlives the cluster, so nothing has to reach the disk. Deadlocks are noticed soon.
const SETTINGS: [&str; 8] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "shared_buffers=32MB",
    "autovacuum=off",
    "deadlock_timeout=200ms",
    "logging_collector=off",
];

/// Reads until the pipe closes. A server that was paused goes on first, or it could not stop.
const GUARD: &str = r#"
trap '' INT TERM HUP
read -r nothing
pid=$(head -n 1 "$1/data/postmaster.pid")
if [ -n "$pid" ] && { [ ! -d /proc/$$ ] || grep -qF -- "$1/data" "/proc/$pid/cmdline"; }; then
    kill -CONT "$pid"
    kill -QUIT "$pid"
    n=0
    while kill -0 "$pid" && [ "$n" -lt 80 ]; do sleep 0.1; n=$((n + 1)); done
    kill -KILL "$pid"
fi
rm -rf "$1"
"#;

/// A running cluster.
pub struct PgServer {
    folder: PathBuf,
    programs: PathBuf,
    /// Who runs the server when we are root, which it refuses to be.
    user: Option<User>,
    port: u16,
    /// Settings of this cluster beside those of all.
    settings: Vec<&'static str>,
    process: Mutex<Option<Child>>,
    guardian: Mutex<Child>,
}

struct User {
    name: String,
    uid: u32,
    gid: u32,
}

impl PgServer {
    /// The cluster that all tests of this process share; started at first use.
    pub fn shared() -> &'static PgServer {
        static SHARED: OnceLock<PgServer> = OnceLock::new();
        SHARED.get_or_init(Self::private)
    }

    /// A cluster for a test that stops, kills or pauses it. Dropping it removes it.
    pub fn private() -> PgServer {
        let server = Self::laid_out(5432, vec!["listen_addresses="]);
        server.start();
        server
    }

    /// A cluster that also listens on 127.0.0.1, where it offers TLS with this certificate and key (PEM). Over TLS it
    /// wants passwords, without TLS it believes everybody. `keeper` with the password `secret` may do everything.
    pub async fn with_tls(certificate: &str, key: &str) -> PgServer {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let server = Self::laid_out(free.port(), vec!["listen_addresses=127.0.0.1", "ssl=on"]);
        // The names under which the server looks for them by itself.
        server.write("server.crt", certificate);
        server.write("server.key", key);
        server.write(
            "pg_hba.conf",
            "hostssl all all 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n",
        );
        server.start();
        let keeper = "set password_encryption to 'scram-sha-256'; create role keeper superuser login password 'secret'";
        server.run("postgres", keeper).await;
        server
    }

    /// A cluster that was made and does not run yet.
    fn laid_out(port: u16, settings: Vec<&'static str>) -> PgServer {
        let programs = programs();
        let folder = private_folder();
        let we = fs::metadata(&folder).expect("the folder was just made").uid();
        let user = (we == 0).then(server_user);
        if let Some(user) = &user {
            chown(&folder, Some(user.uid), Some(user.gid)).expect("root may give a folder away");
            // We need not be allowed to pass by being root; others do not know the name.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).expect("root may open a folder");
        }
        let guardian = Mutex::new(guard(&folder));
        let server = PgServer { folder, programs, user, port, settings, process: Mutex::new(None), guardian };
        server.make_cluster();
        server
    }

    /// The port of its socket, and of 127.0.0.1 if it listens there.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Puts a file of the server's own into its folder of data.
    fn write(&self, name: &str, text: &str) {
        let file = self.data().join(name);
        fs::write(&file, text).expect("a file of the cluster is written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its owner may close a file");
        if let Some(user) = &self.user {
            chown(&file, Some(user.uid), Some(user.gid)).expect("root may give a file away");
        }
    }

    /// The address of `database`, for [`crate::store::Store::open`] and for programs.
    pub fn url(&self, database: &str) -> StoreUrl {
        let port = if self.port == 5432 { String::new() } else { format!("&port={}", self.port) };
        StoreUrl::Postgres(format!("postgres:///{database}?user=postgres&host={}{port}", self.folder.display()))
    }

    /// The private folder that holds everything of this cluster.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A connection of the test's own, outside every pool.
    pub async fn client(&self, database: &str) -> Client {
        let mut config = Config::new();
        config.host_path(&self.folder).port(self.port).user("postgres").dbname(database).application_name("semel-test");
        let (client, connection) =
            config.connect(NoTls).await.unwrap_or_else(|error| panic!("the test cannot connect: {error}"));
        tokio::spawn(async move {
            // Whoever waits for an answer gets the error.
            let _ = connection.await;
        });
        client
    }

    /// Runs statements on a connection of their own.
    pub async fn run(&self, database: &str, sql: &str) {
        let client = self.client(database).await;
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Makes an empty database, or a copy of `template`.
    pub async fn create(&self, database: &str, template: &str) {
        self.run("postgres", &format!("create database {database} template {template}")).await;
    }

    /// How many sessions stores hold now on all databases of this cluster.
    pub async fn sessions(&self) -> i64 {
        let client = self.client("postgres").await;
        let count = "select count(*) from pg_stat_activity where application_name = 'semel'";
        client.query_one(count, &[]).await.expect("the server answers").get(0)
    }

    pub(super) async fn prepare(&self, database: &str, sql: &str) -> Result<(), String> {
        let client = self.client(database).await;
        client.batch_execute("set search_path to semel").await.map_err(|error| format!("{error:?}"))?;
        client.prepare(sql).await.map(|_| ()).map_err(|error| match error.as_db_error() {
            Some(told) => told.message().to_owned(),
            None => error.to_string(),
        })
    }

    /// Starts the server, and waits until it takes connections.
    pub fn start(&self) {
        let mut process = lock(&self.process);
        assert!(process.is_none(), "this PostgreSQL runs already");
        let log = File::options().create(true).append(true).open(self.folder.join("log")).expect("the log opens");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        command.arg("-c").arg(format!("unix_socket_directories={}", self.folder.display()));
        command.arg("-c").arg(format!("port={}", self.port));
        for setting in SETTINGS.iter().chain(&self.settings) {
            command.arg("-c").arg(setting);
        }
        command.stdout(log.try_clone().expect("the log is shared")).stderr(log).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("PostgreSQL does not start: {error}"));
        let since = Stopwatch::start();
        while !self.is_ready() {
            let ended = child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "PostgreSQL ended while starting: {}", self.log());
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "PostgreSQL is not ready after a minute: {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
        *process = Some(child);
    }

    /// Ends all sessions and stops the server in an orderly way.
    pub fn stop_fast(&self) {
        let mut child = lock(&self.process).take().expect("this PostgreSQL runs");
        signal("INT", &self.postmaster().into_iter().collect::<Vec<_>>());
        child.wait().expect("a child can be waited for");
    }

    /// Kills the server and all its processes at once, as a power cut would.
    pub fn kill_9(&self) {
        let mut child = lock(&self.process).take().expect("this PostgreSQL runs");
        let all = self.family();
        signal("KILL", &all);
        child.wait().expect("a child can be waited for");
        let since = Stopwatch::start();
        while all.iter().any(|pid| is_alive(*pid)) {
            assert!(since.elapsed() < Duration::from_secs(30), "killed processes of PostgreSQL do not go away");
            thread::sleep(Duration::from_millis(5));
        }
        // The ids in here are free for other processes now.
        for name in ["data/postmaster.pid".to_owned(), format!(".s.PGSQL.{}.lock", self.port)] {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    /// Stops the server in the middle of whatever it does: it takes connections and says nothing.
    pub fn pause(&self) {
        // The first one first, so that no process is born meanwhile.
        signal("STOP", &self.postmaster().into_iter().collect::<Vec<_>>());
        signal("STOP", &self.family());
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        signal("CONT", &self.family());
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn make_cluster(&self) {
        let mut command = self.command("initdb");
        command.arg("-D").arg(self.data());
        command.args(["-A", "trust", "-U", "postgres", "--no-sync", "--no-locale", "-E", "UTF8"]);
        let made = command.output().unwrap_or_else(|error| panic!("initdb does not start: {error}"));
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match &self.user {
            None => Command::new(program),
            Some(user) if on_path("setpriv").is_some() => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--clear-groups"]);
                command.arg(program);
                command
            }
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", &user.name, "--"]).arg(program);
                command
            }
        };
        command.current_dir(&self.folder).env("LC_ALL", "C").env_remove("PGDATA").stdin(Stdio::null());
        command
    }

    /// The lines of the server's own file: the first is its process, the eighth its state.
    fn state(&self) -> Vec<String> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn is_ready(&self) -> bool {
        self.state().get(7).is_some_and(|state| state == "ready")
    }

    fn postmaster(&self) -> Option<u32> {
        self.state().first()?.parse().ok()
    }

    /// The server's first process and those that it started.
    fn family(&self) -> Vec<u32> {
        let Some(first) = self.postmaster() else { return Vec::new() };
        let mut family = vec![first];
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_string_lossy().parse::<u32>();
            if let Ok(pid) = pid
                && stat(pid).is_some_and(|(_, parent)| parent == first)
            {
                family.push(pid);
            }
        }
        family
    }

    fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut log) = File::open(self.folder.join("log")) {
            let _ = log.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for PgServer {
    fn drop(&mut self) {
        if let Some(mut child) = lock(&self.process).take() {
            self.resume();
            signal("QUIT", &self.postmaster().into_iter().collect::<Vec<_>>());
            let _ = child.wait();
        }
        let mut guardian = lock(&self.guardian);
        drop(guardian.stdin.take());
        let _ = guardian.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Started before the server, in a process group of its own: what ends us by a signal to our group spares it.
fn guard(folder: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "semel-test-guardian"]).arg(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").process_group(0);
    command.spawn().unwrap_or_else(|error| panic!("the guardian does not start: {error}"))
}

/// A socket's path has room for about a hundred bytes, and some temporary folders have long names.
fn private_folder() -> PathBuf {
    let usual = std::env::temp_dir();
    let place = if usual.as_os_str().len() <= 60 { usual } else { PathBuf::from("/tmp") };
    let made = tempfile::Builder::new().prefix("semel-pg-").tempdir_in(place).expect("a temporary folder");
    // The guardian removes it.
    made.keep()
}

fn programs() -> PathBuf {
    let complete = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    if let Some(named) = std::env::var_os("SEMEL_TEST_PG_BINDIR") {
        let named = PathBuf::from(named);
        assert!(complete(&named), "SEMEL_TEST_PG_BINDIR ({}) holds no initdb and postgres", named.display());
        return named;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(folder) = std::env::split_paths(&path).find(complete) {
        return folder;
    }
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = packaged.filter_map(|entry| {
        let version: u32 = entry.file_name().to_string_lossy().parse().ok()?;
        Some((version, entry.path().join("bin")))
    });
    match versions.filter(|(_, folder)| complete(folder)).max() {
        Some((_, folder)) => folder,
        None => panic!("{MISSING}"),
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn server_user() -> User {
    let list = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let find = |name: &str| {
        let line = list.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(User { name: name.to_owned(), uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .expect("a user `postgres` or `nobody`, because root may not run PostgreSQL")
}

/// State and parent of a process; `None` when there is none.
fn stat(pid: u32) -> Option<(String, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// A process that only waits to be reaped is gone.
fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let mut command = Command::new("sh");
    command.args(["-c", "kill -s \"$0\" \"$@\"", name]).args(pids.iter().map(u32::to_string));
    // One that ended by itself meanwhile is no failure.
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
