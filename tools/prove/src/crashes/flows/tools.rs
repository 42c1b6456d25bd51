//! The commands beside the server: settings are written whole or not at all, and `doctor` and `demo` go well.

use std::fs;

use semel_kernel::store::Engine;

use super::{Flow, Step};
use crate::crashes::stage::{Stage, pause};
use crate::program::Patience;

/// Where `init` can die while it writes.
const STEPS: &[&str] = &["file.create", "file.created", "file.written", "file.synced", "file.renamed", "file.placed"];

/// `init`, broken at each of its steps beside a program that runs.
pub struct Tools;

/// A settings file of the flow's own: one named `semel.toml` would be read by every other command.
fn file(stage: &Stage) -> String {
    stage.world.path("own.toml").display().to_string()
}

fn init(file: &str) -> [&str; 10] {
    let (token, url) = (semel_sandbox::BOT_TOKEN, "https://pay.example.com");
    ["--config", file, "init", "--force", "--bot-token", token, "--owner-id", "77", "--public-url", url]
}

/// How many lines the file has, and its last one: what a half of it could not have.
fn ends_as(file: &str) -> (usize, String) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file} cannot be read: {error}"));
    assert!(text.ends_with('\n'), "the last line of {file} is whole");
    (text.lines().count(), text.lines().last().unwrap_or_default().to_owned())
}

impl Flow for Tools {
    fn name(&self) -> &'static str {
        "tools"
    }

    /// What is asked of the commands here is the same whatever database the shop has.
    fn engines(&self) -> &'static [Engine] {
        &[Engine::Sqlite]
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.cli(&init(&file(stage))).await.good();
            stage.cli(&["failpoints"]).await.good();
            let mut demo = stage.begin(&["demo", "--folder", "demo", "--port", "0", "--sandbox-port", "0"]);
            let patience = Patience::of("the demo says what to do", 60);
            while !demo.said().contains("Ctrl-C ends the demo") {
                assert!(demo.ended().is_none(), "the demo goes on: {}", demo.log());
                pause(&patience).await;
            }
            demo.terminate().await;
            stage.start_plain().await;
            stage.cli(&["doctor"]).await.good();
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let file = file(stage);
            let whole = ends_as(&file);
            for step in STEPS {
                for action in ["kill", "error"] {
                    let rule = format!("{step}:settings={action}");
                    stage.cli_armed(&init(&file), &rule).await;
                    assert_eq!(ends_as(&file), whole, "init at {rule} leaves the old file or the new one");
                }
            }
            stage.cli(&init(&file)).await.good();
            let ready = stage.get("/readyz").await;
            assert_eq!(ready.status, 200, "the program runs beside it: {}", ready.text);
        })
    }

    fn settled<'a>(&'a self, _stage: &'a Stage) -> Step<'a> {
        Box::pin(async {})
    }
}
