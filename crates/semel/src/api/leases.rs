//! What runs where: who of several copies sends the bot's messages, and who receives its updates.

use serde::Serialize;

use semel_kernel::leases;
use semel_kernel::store::Engine;
use semel_shop::Lanes;

use super::Doors;

/// What one of several copies does alone, and the task that does it.
const SOLE: &[(&str, &str)] = &[("sender", Lanes::MESSAGES), ("updates", "updates")];

/// How one of them stands.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Standing {
    /// `sender` or `updates`.
    pub(super) name: &'static str,
    /// The process that does it, as it stands on jobs, too; null when nobody does.
    pub(super) holder: Option<String>,
    /// Whether that is this one.
    pub(super) here: bool,
    /// When another one may take it, unless it is kept. An embedded database has one process, and nobody who could.
    pub(super) until: Option<String>,
}

impl Standing {
    /// The word in metrics.
    pub(super) fn word(&self) -> &'static str {
        match (&self.holder, self.here) {
            (None, _) => "nobody",
            (Some(_), true) => "here",
            (Some(_), false) => "elsewhere",
        }
    }
}

/// Those that this shop has. Where the database does not tell, nothing is said.
pub(super) async fn standing(doors: &Doors) -> Vec<Standing> {
    let Some(bot) = &doors.shop.bot else { return Vec::new() };
    let tasks = doors.supervisor.view();
    let sole = SOLE.iter().filter(|(_, task)| tasks.iter().any(|known| known.name == *task)).map(|(name, _)| *name);
    if doors.shop.store.engine() == Engine::Sqlite {
        let here = |name| Standing { name, holder: Some(doors.owner.clone()), here: true, until: None };
        return sole.map(here).collect();
    }
    let Ok(held) = doors.shop.store.look("leases.held", leases::held).await else { return Vec::new() };
    let of = |name: &'static str| {
        let full = format!("{name}:{}", bot.id());
        match held.iter().find(|lease| lease.name == full) {
            None => Standing { name, holder: None, here: false, until: None },
            Some(lease) => Standing {
                name,
                holder: Some(lease.owner.clone()),
                here: lease.owner == doors.owner,
                until: Some(lease.expires_at.to_string()),
            },
        }
    };
    sole.map(of).collect()
}
