//! What only the machine's owner may ask for, through the socket beside an SQLite file: a token, and its end.

use semel_kernel::store::Engine;
use serde_json::json;

use super::{Flow, Step};
use crate::crashes::stage::Stage;
use crate::program::text;

/// A token that is made and made worthless again.
pub struct OwnersSocket;

impl Flow for OwnersSocket {
    fn name(&self) -> &'static str {
        "owners-socket"
    }

    /// With a server there is no socket: every command opens the database itself. The flow [`super::hand`] has that.
    fn engines(&self) -> &'static [Engine] {
        &[Engine::Sqlite]
    }

    /// A token whose answer was lost cannot be asked for again: there is another one then, and nobody holds the first.
    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let wanted = json!({ "name": "reports", "scopes": ["read"] });
            let made = stage.at_the_socket("/api/v1/tokens", &wanted, "token").await;
            assert_eq!(made.status, 201, "a token is made: {}", made.text);
            let (id, token) = (text(&made.body["id"]), text(&made.body["token"]));
            let bearer = stage.world.door().as_bearer(&token);
            let revoke = format!("/api/v1/tokens/{id}/revoke");
            let revoked = stage.at_the_socket(&revoke, &json!({}), "revoke").await;
            assert!(matches!(revoked.status, 200 | 404), "it is worthless, or was already: {}", revoked.text);
            stage.get("/api/v1/jobs").await;
            if let Ok(answer) = bearer.try_get("/api/v1/orders").await {
                assert!(answer.status == 401 || answer.status >= 500, "nobody comes in with it: {}", answer.status);
            }
        })
    }

    fn settled<'a>(&'a self, _stage: &'a Stage) -> Step<'a> {
        Box::pin(async {})
    }
}
