//! Bearer tokens: the first one from the settings, the others from the database, stored as hashes.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use semel_kernel::args;
use semel_shop::web::Problem;

use super::Doors;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Look.
    Read,
    /// Look and change.
    Write,
    /// Read `/metrics` only.
    Metrics,
}

impl Scope {
    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "read" => Some(Self::Read),
            "write" => Some(Self::Write),
            "metrics" => Some(Self::Metrics),
            _ => None,
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Metrics => "metrics",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's id, `first` for the one from the settings, `operator` for the owner's socket.
    pub id: String,
}

impl Caller {
    /// The owner at the machine.
    pub fn operator() -> Self {
        Self { id: "operator".into() }
    }
}

/// How a token is stored.
pub fn hash_token(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

/// Lets a request with a sufficient token pass.
pub(super) async fn bearer(State(doors): State<Doors>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else {
        return Err(Problem::unauthorized(
            "send a token in the header `Authorization: Bearer …`; `semel token create` makes one",
        ));
    };
    let hash = hash_token(token.trim());
    let first = doors.first_token.as_ref().is_some_and(|first| bool::from(first.as_bytes().ct_eq(hash.as_bytes())));
    let (id, scopes) = if first { ("first".to_owned(), vec![Scope::Write]) } else { known(&doors, &hash).await? };
    let needed = match (request.uri().path(), request.method()) {
        ("/metrics", _) => Scope::Metrics,
        (_, &Method::GET | &Method::HEAD) => Scope::Read,
        _ => Scope::Write,
    };
    let enough = scopes.contains(&Scope::Write)
        || scopes.contains(&needed)
        || (needed == Scope::Metrics && scopes.contains(&Scope::Read));
    if !enough {
        let scope = needed.as_str();
        return Err(Problem::forbidden(format!(
            "this token has not the scope {scope}, which this call needs; `semel token create NAME --scope {scope}` makes one that has"
        ))
        .with("scope", scope));
    }
    request.extensions_mut().insert(Caller { id });
    Ok(next.run(request).await)
}

async fn known(doors: &Doors, hash: &str) -> Result<(String, Vec<Scope>), Problem> {
    let rows = doors
        .shop
        .store
        .rows("tokens.find", "select id, scopes from tokens where hash = $1 and revoked_at is null", args![hash])
        .await
        .map_err(semel_shop::Error::from)?;
    let Some(row) = rows.first() else {
        return Err(Problem::unauthorized("this token is not known or was revoked"));
    };
    let scopes: String = row.get(1).map_err(semel_shop::Error::from)?;
    Ok((row.get(0).map_err(semel_shop::Error::from)?, scopes.split(',').filter_map(Scope::parse).collect()))
}
