//! The list of failpoints is what the sources say: a new commit, call, job or task is a new place to break the program at, and
//! a campaign that does not know it would pass it by.
//!
//! A name is `place:label`. The places are literals at `hit`, `fail`, `reach` and `check`. A label that is no literal there
//! comes from where it is given: see [`labels`].

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use semel_payments::Provider;

use super::{read, root, sources};

const LIST: &str = "crates/semel/failpoints.txt";

/// The crates of the program itself.
const CRATES: &[&str] = &["kernel", "shop", "semel"];

/// Transactions that are always undone.
const NEVER_COMMITTED: &[&str] = &["store.migrate.dry"];

#[test]
fn every_failpoint_is_listed() {
    let found = Code::of_the_program().names().unwrap_or_else(|complaints| panic!("{}", complaints.join("\n")));
    let text = fs::read_to_string(root().join(LIST)).unwrap_or_else(|error| panic!("{LIST}: {error}"));
    let listed: Vec<String> = text.lines().map(str::to_owned).collect();
    let sorted: BTreeSet<String> = listed.iter().cloned().collect();
    let wrong = [("add", found.difference(&sorted)), ("remove", sorted.difference(&found))];
    let lines: Vec<String> =
        wrong.into_iter().flat_map(|(what, names)| names.map(move |name| format!("{what}: {name}"))).collect();
    assert!(lines.is_empty(), "{LIST} is not what the sources say:\n{}", lines.join("\n"));
    assert!(listed.iter().eq(&sorted), "{LIST} is not sorted, or has a name twice");
    assert!(listed.len() >= 120, "only {} places to break the program at", listed.len());
}

#[test]
fn a_name_is_found_wherever_its_label_is_given() {
    let code = Code::of(&[
        "impl Job for A { const KIND: &'static str = \"a.run\"; const LANE: &'static str = Lanes::MONEY;\n\
         fn run() { shop.write(Self::KIND, |tx| x).await; shop\n.write(\"a.more\", f); file.write(true); log.read(\"b\") } }\n\
         impl Job for B { const KIND: &'static str = \"b.run\"; fn run() { shop.write(Self::KIND, f) } }\n\
         // store.write(\"only.said\", f)\n\
         #[cfg(test)]\nmod tests { fn f() { store.write(\"of.a.test\", f) } }",
        "impl Lanes { pub const MONEY: &'static str = \"money\"; }\n\
         let a = talk::send(shop, rail, \"a.ask\", M::Read, r); let b = Call::new(\"b.ask\", host, M::Read);",
        "use crate::failpoint::{fail, hit};\n\
         hit(\"commit.before\", work.label()); if fail(\n\"call.before\", call.label) {}\n\
         hit(\"lane.claim\", lane); hit(\"file.lock\", \"x\"); unhit(\"no.place\", \"x\"); hit(\"cron.look\", LEASE);\n\
         const LEASE: &str = \"one\"; self.run(\"s.ping\", Mode::Write, f); self.run(\"s.look\", Mode::Read, f)",
        "check(\"a title\", \"of another file\")",
    ]);
    let names = code.names().unwrap_or_else(|complaints| panic!("{}", complaints.join("\n")));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let wanted = [
        "call.before:a.ask",
        "call.before:b.ask",
        "commit.before:a.more",
        "commit.before:a.run",
        "commit.before:b.run",
        "commit.before:s.ping",
        "cron.look:one",
        "file.lock:x",
        "lane.claim:money",
    ];
    assert_eq!(names, wanted);

    let strange = Code::of(&["use crate::failpoint::hit; hit(\"moon.rise\", name)"]).names();
    assert!(strange.is_err_and(|complaints| complaints[0].contains("moon.rise")));
}

/// Sources without comments of their own line and without their tests.
struct Code(Vec<String>);

/// A call: where it stands and its first arguments.
struct Call<'c> {
    at: usize,
    args: Vec<&'c str>,
}

impl Code {
    fn of_the_program() -> Code {
        let files = CRATES.iter().flat_map(|name| sources(&root().join("crates").join(name).join("src")));
        let texts: Vec<String> = files.filter(|file| !is_beside(file)).map(|file| read(&file)).collect();
        Code::of(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn of(texts: &[&str]) -> Code {
        let stripped = texts.iter().map(|text| {
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = product.lines().filter(|line| !line.trim_start().starts_with("//"));
            lines.collect::<Vec<_>>().join("\n")
        });
        Code(stripped.collect())
    }

    /// Every name, or what cannot be told.
    fn names(&self) -> Result<BTreeSet<String>, Vec<String>> {
        let (mut names, mut complaints) = (BTreeSet::new(), Vec::new());
        for text in self.0.iter().filter(|text| text.contains("failpoint::")) {
            for verb in ["hit", "fail", "reach", "check"] {
                for call in calls(text, verb) {
                    let Some(place) = call.args.first().and_then(|arg| literal(arg)) else { continue };
                    let given = call.args.get(1).copied().unwrap_or_default();
                    let labels = match self.value(text, call.at, given) {
                        Some(label) => Some(BTreeSet::from([label])),
                        None => self.labels(place),
                    };
                    match labels {
                        Some(labels) => names.extend(labels.iter().map(|label| format!("{place}:{label}"))),
                        None => complaints.push(format!("{place}: nobody says where the labels `{given}` come from")),
                    }
                }
            }
        }
        if complaints.is_empty() { Ok(names) } else { Err(complaints) }
    }

    /// The labels of places that are given one at run time.
    fn labels(&self, place: &str) -> Option<BTreeSet<String>> {
        Some(match place.split('.').next().unwrap_or_default() {
            "commit" => self.transactions(),
            "call" => {
                let handed_on = self.given("talk::send", 2).into_iter().chain(self.given("do_it", 2));
                self.given("Call::new", 0).into_iter().chain(handed_on).collect()
            }
            "job" => self.constants("KIND"),
            "lane" => self.constants("LANE"),
            "lease" => self.constants("LEASE"),
            "task" => self.given(".spawn", 0).into_iter().chain(self.constants("LANE")).collect(),
            "webhook" => Provider::ALL
                .iter()
                .filter(|provider| provider.has_webhook())
                .map(|provider| provider.as_str().to_owned())
                .collect(),
            _ => return None,
        })
    }

    /// Labels of transactions that change something: `write`, `single`, and the store's own `run`.
    fn transactions(&self) -> BTreeSet<String> {
        let mut labels = self.given(".write", 0);
        labels.extend(self.given(".single", 0));
        // What hands its label on to a `write`.
        labels.extend(self.given("change", 1));
        labels.extend(self.given("silence::keep", 1));
        // The command line has verbs of its own under that name; a transaction is called after its feature.
        labels.extend(self.given("act", 2).into_iter().filter(|label| label.contains('.')));
        for text in &self.0 {
            for call in calls(text, "self.run") {
                let changes = call.args.get(1).is_some_and(|mode| matches!(*mode, "Mode::Write" | "Mode::Single"));
                labels.extend(call.args.first().filter(|_| changes).and_then(|arg| literal(arg)).map(str::to_owned));
            }
        }
        labels.retain(|label| !NEVER_COMMITTED.contains(&label.as_str()));
        labels
    }

    /// What stands as the argument `nth` of every call of `name`, where it can be told.
    fn given(&self, name: &str, nth: usize) -> BTreeSet<String> {
        let of = |text: &String| -> Vec<String> {
            let found = calls(text, name).into_iter();
            found.filter_map(|call| self.value(text, call.at, call.args.get(nth)?)).collect()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// The values of every text constant of this name.
    fn constants(&self, name: &str) -> BTreeSet<String> {
        let of = |text: &String| -> Vec<String> {
            let found = constants(text).into_iter().filter(|(_, known, _)| *known == name);
            found.filter_map(|(at, _, value)| self.value(text, at, value)).collect()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// The text that `expression` stands for at `at`: a literal, or the constant of that name that stands nearest before, in
    /// the same file, in another one.
    fn value(&self, text: &str, at: usize, expression: &str) -> Option<String> {
        if let Some(value) = literal(expression) {
            return Some(value.to_owned());
        }
        let name = expression.rsplit("::").next()?;
        if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_') {
            return None;
        }
        // `const KIND = J::KIND` hands on the constant of another: that one is found where it stands.
        let own = |value: &str| value.rsplit("::").next() != Some(name);
        let here: Vec<_> =
            constants(text).into_iter().filter(|(_, known, value)| *known == name && own(value)).collect();
        let nearest = here.iter().rev().find(|(before, _, _)| *before < at).or(here.first());
        match nearest {
            Some((place, _, value)) => self.value(text, *place, value),
            None => self.0.iter().find_map(|other| {
                let found = constants(other).into_iter().find(|(_, known, value)| *known == name && own(value))?;
                literal(found.2).map(str::to_owned)
            }),
        }
    }
}

/// Files that are not of the running program: tests, their helpers, and the failpoints themselves.
fn is_beside(file: &Path) -> bool {
    let words = ["tests.rs", "testing.rs", "testing", "failpoint.rs", "failpoint"];
    let file = file.strip_prefix(root()).unwrap_or(file);
    file.iter().any(|part| words.iter().any(|word| part == *word))
}

/// Every call of `name` in `text`, with its arguments as far as the third. A name that goes on before does not count, unless it
/// begins with a dot.
fn calls<'c>(text: &'c str, name: &str) -> Vec<Call<'c>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&format!("{name}(")) {
        let before = text[..at].chars().next_back().unwrap_or(' ');
        if name.starts_with('.') || !(before.is_alphanumeric() || matches!(before, '_' | '.')) {
            found.push(Call { at, args: arguments(&text[at + name.len() + 1..]) });
        }
    }
    found
}

/// The first three arguments of a call whose text begins behind its bracket.
fn arguments(text: &str) -> Vec<&str> {
    let (mut args, mut from, mut depth) = (Vec::new(), 0, 0_usize);
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ')' | ']' | '}' => {
                args.push(text[from..at].trim());
                break;
            }
            ',' if depth == 0 => {
                args.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
        if args.len() == 3 {
            break;
        }
    }
    args
}

/// Every text constant: where it stands, its name, the expression of its value.
fn constants(text: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    for (at, word) in text.match_indices("const ") {
        let rest = &text[at + word.len()..];
        let Some((declared, value)) = rest.split_once(';').and_then(|(whole, _)| whole.split_once('=')) else {
            continue;
        };
        let Some((name, kind)) = declared.split_once(':') else { continue };
        if matches!(kind.trim(), "&'static str" | "&str") {
            found.push((at, name.trim(), value.trim()));
        }
    }
    found
}

/// What stands between the quotation marks of a plain literal.
fn literal(expression: &str) -> Option<&str> {
    let inner = expression.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains(['"', '\\'])).then_some(inner)
}
