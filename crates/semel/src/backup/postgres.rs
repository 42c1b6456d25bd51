//! PostgreSQL's own tools: `pg_dump` makes a consistent copy while the program runs, `pg_restore` and `psql` bring it back
//! in one transaction.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, anyhow, bail};

/// Complaints of a tool that are told.
const COMPLAINT_CHARS: usize = 600;

/// Whose data: the address without its password, which must not stand in a list of processes.
struct Server {
    address: String,
    password: Option<String>,
}

impl Server {
    fn of(url: &str) -> Server {
        let (address, in_query) = without_query_password(url);
        let (address, in_front) = without_password(&address);
        Server { address, password: in_front.or(in_query) }
    }

    /// A tool on the `PATH` that will ask for no password.
    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--no-password").arg(format!("--dbname={}", self.address)).env("PGAPPNAME", "semel-backup");
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        command
    }
}

/// Dumps the schema `semel` in the custom format into `sink`. `told` hears how many bytes are done.
///
/// # Errors
/// When the tool is not there or fails; what was written then is worth nothing.
pub fn dump(url: &str, sink: &mut impl Write, mut told: impl FnMut(u64)) -> anyhow::Result<()> {
    let mut command = Server::of(url).tool("pg_dump");
    command.args(["--format=custom", "--schema=semel", "--no-owner", "--no-privileges"]);
    let mut running = Running::start("pg_dump", command, Stdio::null(), Stdio::piped())?;
    let mut out = running.child.stdout.take().context("pg_dump has no output")?;
    let mut part = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let count = out.read(&mut part).context("pg_dump broke off")?;
        if count == 0 {
            break;
        }
        sink.write_all(&part[..count]).context("the backup cannot be written")?;
        bytes += u64::try_from(count).unwrap_or(0);
        told(bytes);
    }
    running.end()
}

/// Brings a dump back into a database that holds no schema `semel`, or an empty one, and runs `script` in the same
/// transaction: either all of it is there afterwards, or nothing.
///
/// # Errors
/// When a tool is not there or fails; then nothing was changed.
pub fn restore(url: &str, dump: &Path, script: &str) -> anyhow::Result<()> {
    let mut reader = Command::new("pg_restore");
    reader.args(["--no-owner", "--no-privileges", "--file=-"]).arg(dump);
    let mut reader = Running::start("pg_restore", reader, Stdio::null(), Stdio::piped())?;
    let mut statements = reader.child.stdout.take().context("pg_restore has no output")?;

    let mut writer = Server::of(url).tool("psql");
    writer.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"]);
    let mut writer = Running::start("psql", writer, Stdio::piped(), Stdio::null())?;
    let mut input = writer.child.stdin.take().context("psql takes no input")?;

    // A schema that somebody made and that holds nothing is made anew; one that holds something ends this.
    let begun = input.write_all(b"begin;\nset client_min_messages = warning;\ndrop schema if exists semel restrict;\n");
    let copied = begun.and_then(|()| std::io::copy(&mut statements, &mut input));
    drop(statements);
    // Without the commit psql ends at the end of its input, and the server takes everything back.
    let read = reader.end();
    if copied.is_ok() && read.is_ok() {
        let end = format!("\n{script}\ncommit;\n");
        let written = input.write_all(end.as_bytes());
        drop(input);
        writer.end()?;
        return written.context("psql broke off");
    }
    drop(input);
    // Whoever broke off first knows why: a `psql` that stopped makes `pg_restore` fail as well.
    writer.end()?;
    read?;
    copied.map(|_| ()).context("the dump cannot be brought to psql")
}

/// A tool at work, its complaints gathered.
struct Running {
    program: &'static str,
    child: Child,
    complaints: Option<JoinHandle<String>>,
}

impl Running {
    fn start(program: &'static str, mut command: Command, input: Stdio, output: Stdio) -> anyhow::Result<Running> {
        let started = command.stdin(input).stdout(output).stderr(Stdio::piped()).spawn();
        let mut child = started.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow!(
                "{program} is not on the PATH: install PostgreSQL's client programs, of the server's version or newer \
                 (Debian: apt-get install postgresql-client)"
            ),
            _ => anyhow!("{program} does not start: {error}"),
        })?;
        let complaints = child.stderr.take().map(|stderr| std::thread::spawn(move || gather(stderr)));
        Ok(Running { program, child, complaints })
    }

    /// Waits for its end, which must be a good one.
    fn end(mut self) -> anyhow::Result<()> {
        let status: ExitStatus = self.child.wait().with_context(|| format!("{} was lost", self.program))?;
        let said = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        let said = said.trim();
        let why = if said.is_empty() { status.to_string() } else { said.chars().take(COMPLAINT_CHARS).collect() };
        bail!("{} failed: {why}", self.program)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless its caller broke off.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(mut stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    let _ = stderr.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `scheme://user:password@rest` without the password. The first `@` ends the credentials, as for our own driver.
fn without_password(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let Some((credentials, place)) = rest.split_once('@').filter(|(before, _)| !before.contains('/')) else {
        return (url.to_owned(), None);
    };
    match credentials.split_once(':') {
        Some((user, password)) => (format!("{scheme}://{user}@{place}"), Some(decoded(password))),
        None => (url.to_owned(), None),
    }
}

/// `…?password=…` without it. A question mark in the credentials belongs to the password.
fn without_query_password(url: &str) -> (String, Option<String>) {
    let from = url.find('@').map_or(0, |at| at + 1);
    let Some(at) = url[from..].find('?').map(|at| from + at) else { return (url.to_owned(), None) };
    let (place, query) = (&url[..at], &url[at + 1..]);
    let (found, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| pair.starts_with("password="));
    let password = found.first().and_then(|pair| pair.split_once('=')).map(|(_, value)| decoded(value));
    (if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) }, password)
}

/// `%2F` and the like; a plus is a plus.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_apart(url: &str) -> (String, Option<String>) {
        let server = Server::of(url);
        (server.address, server.password)
    }

    #[test]
    fn a_password_stands_in_no_list_of_processes() {
        let some = |password: &str| Some(password.to_owned());
        for (url, address, password) in [
            ("postgres://semel:se%2Fcret@db/shop", "postgres://semel@db/shop", some("se/cret")),
            ("postgres://semel:a?b@db/shop?sslmode=require", "postgres://semel@db/shop?sslmode=require", some("a?b")),
            ("postgres:///shop?user=semel&host=/run&password=x", "postgres:///shop?user=semel&host=/run", some("x")),
            ("postgres://semel@db/shop", "postgres://semel@db/shop", None),
            ("postgres://db/shop?password=100%", "postgres://db/shop", some("100%")),
        ] {
            assert_eq!(taken_apart(url), (address.to_owned(), password), "{url}");
        }
    }

    #[test]
    fn a_tool_that_is_not_there_is_told_with_what_to_do() {
        let missing = Command::new("semel-no-such-tool");
        let told =
            Running::start("pg_dump", missing, Stdio::null(), Stdio::null()).err().map(|error| error.to_string());
        assert!(told.is_some_and(|told| told.contains("apt-get install postgresql-client")));
    }
}
