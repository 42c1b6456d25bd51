//! Subscriptions as the API shows them: read only, with the statements that nobody else needs.

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Told};
use semel_kernel::store::{Row, StoreError, Tx};
use serde::Serialize;

use super::SubscriptionId;
use super::flows::{self, PeriodView};
use crate::Error;
use crate::vpn::view::{self as vpn_view, PeerView};

/// More of a story is not shown.
const TIMELINE_ROWS: i64 = 500;

semel_kernel::statements! {
    LIST = "select s.id, c.telegram_id, s.product, s.server, s.state, s.paid_until, s.frozen_at, s.devices, s.created_at, s.ended_at
        from subscriptions s join customers c on c.id = s.customer
        where (cast($1 as bigint) is null or c.telegram_id = $1) and (cast($2 as text) is null or s.state = $2)
            and (cast($3 as text) is null or s.id < $3)
        order by s.id desc limit $4";
    ONE = "select s.id, c.telegram_id, s.product, s.server, s.state, s.paid_until, s.frozen_at, s.devices, s.created_at, s.ended_at
        from subscriptions s join customers c on c.id = s.customer where s.id = $1";
}

/// A subscription in a list.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub customer: Person,
    /// The product it was bought as; none for a trial or a gift.
    pub product: Option<String>,
    /// The server that it gives access to.
    pub server: String,
    /// Where it stands.
    pub state: String,
    /// Until when it is paid, RFC 3339. Access goes on for the grace time after it.
    pub paid_until: String,
    /// Since when it is frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_at: Option<String>,
    /// How many devices it has.
    pub devices: i64,
    /// When it was made.
    pub created_at: String,
    /// When it expired or was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// Whose a thing is.
#[derive(Clone, Debug, Serialize)]
pub struct Person {
    /// The Telegram id.
    pub telegram_id: i64,
}

/// A subscription with all that belongs to it.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// What a list shows.
    #[serde(flatten)]
    pub line: Line,
    /// Its devices' peers, the present ones and those that were.
    pub peers: Vec<PeerView>,
    /// The time that it was given.
    pub periods: Vec<PeriodView>,
    /// Everything that happened to it.
    pub timeline: Vec<Told>,
}

/// Subscriptions, the newest first: of a customer, in a state, below the id `before`.
pub fn list(
    tx: &mut Tx,
    customer: Option<i64>,
    state: Option<&str>,
    before: Option<&str>,
    limit: i64,
) -> Result<Vec<Line>, Error> {
    let rows = tx.rows(LIST, args![customer, state, before, limit])?;
    Ok(rows.iter().map(line_of).collect::<Result<_, _>>()?)
}

/// One subscription.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn one(tx: &mut Tx, id: &SubscriptionId) -> Result<View, Error> {
    let row = tx.first(ONE, args![id])?.ok_or_else(|| Error::missing("subscription", id))?;
    let line = line_of(&row)?;
    let periods = flows::periods(tx, id)?;
    let id = id.as_str();
    let peers = vpn_view::peers(tx, &vpn_view::PeerFilter { subscription: Some(id), ..Default::default() }, 100)?;
    let timeline = history::story(tx, id, TIMELINE_ROWS)?;
    Ok(View { line, peers, periods, timeline })
}

fn line_of(row: &Row) -> Result<Line, StoreError> {
    Ok(Line {
        id: row.get(0)?,
        customer: Person { telegram_id: row.get(1)? },
        product: row.get(2)?,
        server: row.get(3)?,
        state: row.get(4)?,
        paid_until: row.get::<Time>(5)?.to_string(),
        frozen_at: row.get::<Option<Time>>(6)?.map(|at| at.to_string()),
        devices: row.get(7)?,
        created_at: row.get::<Time>(8)?.to_string(),
        ended_at: row.get::<Option<Time>>(9)?.map(|at| at.to_string()),
    })
}
