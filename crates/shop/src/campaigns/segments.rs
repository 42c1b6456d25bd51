//! Segments: who a campaign goes to, as conditions that are counted now and written down at the start.

use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Row, StoreError, Tx, Value};

use super::sql;
use crate::{Error, Shop};

semel_kernel::id!(SegmentId, "seg", "A saved segment of the customers.");

/// The longest list of Telegram ids: it travels in one request.
const LIST_AT_MOST: usize = 20_000;
/// Customers that one transaction looks at while an audience is written down: a longer one would keep everybody else from
/// writing for as long.
const PIECE: usize = 5_000;
const NAME_CHARS: usize = 60;
const TAG_CHARS: usize = 40;
/// People whose tag one call may change.
pub const TAGGED_AT_MOST: usize = 1_000;

/// Who belongs to a segment: all of these at the same time; a rule without any is everybody.
///
/// Stored in rows: a member may be added with a default, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whether they have access to what is sold as a subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Who bought this product, and was not refunded for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bought: Option<String>,
    /// Who did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_bought: Option<String>,
    /// `ru` or `en`, as they are written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// What the owner calls them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What the owner does not call them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_tag: Option<String>,
    /// Just these Telegram ids, whether we know them or not. Stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<i64>>,
}

/// Whether somebody has access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Has it now: on trial, paid, or in the days of grace.
    Active,
    /// Had it, and has none now.
    Expired,
    /// Never had it.
    Never,
}

impl Access {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Never => "never",
        }
    }
}

impl Rule {
    /// The same, when it makes sense.
    pub fn checked(mut self) -> Result<Self, Error> {
        if let Some(list) = &mut self.list {
            list.sort_unstable();
            list.dedup();
            if list.is_empty() || list.len() > LIST_AT_MOST || list.contains(&0) {
                return Err(Error::invalid("rule.list", format!("1 to {LIST_AT_MOST} Telegram ids")));
            }
            let alone = Self { list: self.list.clone(), ..Self::default() } == self;
            if !alone {
                return Err(Error::invalid("rule.list", "a list stands alone, without other conditions"));
            }
            return Ok(self);
        }
        if let Some(language) = &self.language
            && !matches!(language.as_str(), "ru" | "en")
        {
            return Err(Error::invalid("rule.language", "ru or en"));
        }
        for (name, tag) in [("rule.tag", &self.tag), ("rule.without_tag", &self.without_tag)] {
            if let Some(tag) = tag {
                sound_tag(name, tag)?;
            }
        }
        Ok(self)
    }

    /// What the statements about an audience take, in the order of their parameters from `$1` on.
    fn parameters(&self) -> [Value; 6] {
        [
            Value::from(self.access.map(Access::as_str)),
            Value::from(self.bought.as_ref()),
            Value::from(self.not_bought.as_ref()),
            Value::from(self.language.as_ref()),
            Value::from(self.tag.as_ref()),
            Value::from(self.without_tag.as_ref()),
        ]
    }
}

/// Refuses what is no tag.
pub fn sound_tag(place: &str, tag: &str) -> Result<(), Error> {
    let length = tag.chars().count();
    if !(1..=TAG_CHARS).contains(&length) || tag.chars().any(char::is_control) || tag.trim() != tag {
        return Err(Error::invalid(place, format!("one word or line of 1 to {TAG_CHARS} characters")));
    }
    Ok(())
}

/// How many people a rule means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audience {
    /// Everybody in it.
    pub people: i64,
    /// Who would be written to.
    pub to_send: i64,
    /// Who blocked the bot, or wants no campaigns: counted, and left out.
    pub skipped: i64,
    /// Of `to_send`, who is written to in Russian.
    pub ru: i64,
    /// Of `to_send`, who is written to in English.
    pub en: i64,
}

/// Counts who belongs to `rule` at this moment.
///
/// # Errors
/// The database did not answer.
pub fn count(tx: &mut Tx, rule: &Rule) -> Result<Audience, Error> {
    let row = match &rule.list {
        Some(list) => tx.one(sql::COUNT_LIST, args![text_of(list)?])?,
        None => tx.one(sql::COUNT, &rule.parameters())?,
    };
    let (people, to_send, ru): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Audience { people, to_send, skipped: people - to_send, ru, en: to_send - ru })
}

/// How far the writing down of an audience is. Everybody from the first customer to the newest one of its beginning is looked
/// at once, in the order of their ids, so nobody stands there twice and nobody is passed over, however often it is interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Everybody up to here was looked at: a customer's id, or a chat's where the rule is a list.
    pub after: String,
    /// Who came after this one came too late. Empty where the rule is a list.
    pub until: String,
}

impl Sweep {
    /// The beginning of one, which fixes its end.
    pub(super) fn of(tx: &mut Tx, rule: &Rule) -> Result<Self, StoreError> {
        let newest = match &rule.list {
            Some(_) => None,
            None => tx.first(sql::NEWEST, &[])?.map(|row| row.get::<String>(0)).transpose()?,
        };
        Ok(Self { after: String::new(), until: newest.unwrap_or_default() })
    }

    /// Writes a row for each of the next ones who belong to `rule`, numbered on from `before`. Answers how many, and how far it
    /// is then: none when nobody is left to look at.
    pub(super) fn write(
        &self,
        tx: &mut Tx,
        campaign: &str,
        rule: &Rule,
        before: i64,
    ) -> Result<(u64, Option<Self>), StoreError> {
        match &rule.list {
            Some(list) => self.write_listed(tx, campaign, list, before),
            None => self.write_customers(tx, campaign, rule, before),
        }
    }

    fn write_customers(
        &self,
        tx: &mut Tx,
        campaign: &str,
        rule: &Rule,
        before: i64,
    ) -> Result<(u64, Option<Self>), StoreError> {
        let piece = i64::try_from(PIECE).unwrap_or(i64::MAX);
        let row = tx.one(sql::NEXT_CUSTOMERS, args![&self.after, &self.until, piece])?;
        let (last, looked_at): (Option<String>, i64) = (row.get(0)?, row.get(1)?);
        let Some(last) = last else { return Ok((0, None)) };
        let now = tx.now();
        let mut args = rule.parameters().to_vec();
        args.extend([
            Value::from(campaign),
            Value::from(now),
            Value::from(&self.after),
            Value::from(&last),
            Value::from(before),
        ]);
        let written = tx.execute(sql::SNAPSHOT, &args)?;
        let next = (looked_at == piece).then(|| Self { after: last, until: self.until.clone() });
        Ok((written, next))
    }

    /// A list is sorted, and names nobody twice.
    fn write_listed(
        &self,
        tx: &mut Tx,
        campaign: &str,
        list: &[i64],
        before: i64,
    ) -> Result<(u64, Option<Self>), StoreError> {
        let after: Option<i64> = self.after.parse().ok();
        let from = list.partition_point(|chat| after.is_some_and(|after| *chat <= after));
        let left = list.get(from..).unwrap_or_default();
        let piece = left.get(..PIECE).unwrap_or(left);
        let Some(last) = piece.last() else { return Ok((0, None)) };
        let now = tx.now();
        let written = tx.execute(sql::SNAPSHOT_LIST, args![text_of(piece)?, campaign, now, before])?;
        let next = (left.len() > piece.len()).then(|| Self { after: last.to_string(), until: String::new() });
        Ok((written, next))
    }
}

/// A saved segment.
#[derive(Clone, Debug, Serialize)]
pub struct Segment {
    /// Its id.
    pub id: SegmentId,
    /// What the owner calls it.
    pub name: String,
    /// Who belongs to it.
    pub rule: Rule,
    /// When it was made, RFC 3339.
    pub created_at: String,
}

/// Saves a segment.
///
/// # Errors
/// [`Error::Invalid`] when name or rule make no sense, [`Error::Conflict`] when the name is taken.
pub fn create(tx: &mut Tx, shop: &Shop, name: &str, rule: &Rule) -> Result<SegmentId, Error> {
    let name = sound_name(name)?;
    let now = tx.now();
    let id = SegmentId::new(now, &shop.chance);
    let made = tx.execute(sql::SEGMENT_INSERT, args![&id, name, text_of(rule)?, now])?;
    if made == 0 {
        return Err(Error::Conflict(format!("there is a segment {name} already")));
    }
    Ok(id)
}

/// Changes whom a segment means. Campaigns that were made of it keep what they had.
///
/// # Errors
/// [`Error::NotFound`].
pub fn change(tx: &mut Tx, id: &SegmentId, rule: &Rule) -> Result<(), Error> {
    match tx.execute(sql::SEGMENT_CHANGE, args![id, text_of(rule)?])? {
        0 => Err(Error::missing("segment", id)),
        _ => Ok(()),
    }
}

/// A segment by its id or its name.
///
/// # Errors
/// [`Error::NotFound`].
pub fn find(tx: &mut Tx, id_or_name: &str) -> Result<Segment, Error> {
    // PostgreSQL takes no zero byte in a text, and no segment has one.
    let row = if id_or_name.contains('\0') { None } else { tx.first(sql::SEGMENT_FIND, args![id_or_name])? };
    Ok(segment(&row.ok_or_else(|| Error::missing("segment", format!("{id_or_name:.80}")))?)?)
}

/// All segments by name, those after `after`.
///
/// # Errors
/// The database did not answer.
pub fn list(tx: &mut Tx, after: Option<&str>, limit: i64) -> Result<Vec<Segment>, Error> {
    let rows = tx.rows(sql::SEGMENT_LIST, args![after.unwrap_or_default(), limit])?;
    Ok(rows.iter().map(segment).collect::<Result<_, _>>()?)
}

/// Calls customers by a tag, or no longer; answers how many of them there are. Ids that we do not know are left out, because a
/// tag belongs to a customer.
///
/// # Errors
/// [`Error::Invalid`] for what is no tag.
pub fn tag(tx: &mut Tx, tag: &str, add: &[i64], remove: &[i64]) -> Result<i64, Error> {
    sound_tag("tag", tag)?;
    if add.len() + remove.len() > TAGGED_AT_MOST {
        return Err(Error::invalid("add", format!("at most {TAGGED_AT_MOST} people in one call")));
    }
    let now = tx.now();
    if !add.is_empty() {
        tx.execute(sql::TAG, args![text_of(add)?, tag, now])?;
    }
    if !remove.is_empty() {
        tx.execute(sql::UNTAG, args![text_of(remove)?, tag])?;
    }
    Ok(tx.one(sql::TAGGED, args![tag])?.get(0)?)
}

fn sound_name(name: &str) -> Result<&str, Error> {
    let name = name.trim();
    if !(1..=NAME_CHARS).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(Error::invalid("name", format!("one line of 1 to {NAME_CHARS} characters")));
    }
    Ok(name)
}

/// A rule, a list or words as a row or a statement takes them.
pub(super) fn text_of(value: &(impl Serialize + ?Sized)) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Statement(error.to_string()))
}

pub(super) fn rule_of(text: &str) -> Result<Rule, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Decode { wanted: "the rule of a segment", found: error.to_string() })
}

fn segment(row: &Row) -> Result<Segment, StoreError> {
    Ok(Segment {
        id: row.get(0)?,
        name: row.get(1)?,
        rule: rule_of(&row.get::<String>(2)?)?,
        created_at: row.get::<Time>(3)?.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_conditions_is_everybody() {
        let rule: Rule = serde_json::from_str("{}").expect("a rule");
        assert_eq!(rule.clone().checked().expect("a rule"), Rule::default());
        assert_eq!(text_of(&rule).expect("a text"), "{}");
    }

    #[test]
    fn a_misspelt_condition_does_not_mean_everybody() {
        assert!(serde_json::from_str::<Rule>(r#"{"acess":"active"}"#).is_err());
        assert!(serde_json::from_str::<Rule>(r#"{"access":"activ"}"#).is_err());
    }

    #[test]
    fn a_list_stands_alone_and_names_nobody_twice() {
        let list = |ids: &[i64]| Rule { list: Some(ids.to_vec()), ..Rule::default() };
        assert_eq!(list(&[3, 1, 3]).checked().expect("a rule").list, Some(vec![1, 3]));
        assert!(list(&[]).checked().is_err());
        assert!(list(&[0]).checked().is_err());
        assert!(Rule { tag: Some("vip".into()), ..list(&[1]) }.checked().is_err());
    }

    #[test]
    fn conditions_have_a_shape() {
        for wrong in [
            Rule { language: Some("de".into()), ..Rule::default() },
            Rule { tag: Some(String::new()), ..Rule::default() },
            Rule { without_tag: Some(" vip".into()), ..Rule::default() },
        ] {
            assert!(wrong.clone().checked().is_err(), "{wrong:?}");
        }
    }
}
