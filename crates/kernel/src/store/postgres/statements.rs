//! Statements that the server keeps prepared for one session of ours.
//!
//! A text that comes once is sent as it is. When it comes a second time it is sent once more as it is, and prepared
//! behind the commit of its transaction, so that nobody waits for a round trip of its own; from then on only its name
//! and its parameters travel, and the server neither reads nor plans it again. What came twice in one session comes in the
//! others, too: there it is prepared behind its first coming.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use tokio_postgres::Statement;
use tokio_postgres::types::Type;

use super::lock;
use super::values::Parameter;

/// Prepared statements at most. Each costs the server some ten kilobytes in every session.
const PREPARED: usize = 256;
/// Texts remembered at most, prepared or not.
const TEXTS: usize = 1024;
/// Sets of parameter types remembered at most for one text: nulls make many.
const VARIANTS: usize = 4;
/// Statements prepared behind one commit at most: all of a settlement's.
const AT_ONCE: usize = 32;

/// The texts that came twice in some session of a pool, with the types of their parameters.
pub(super) type Often = Arc<Mutex<HashSet<((usize, usize), Vec<Type>)>>>;

#[derive(Default)]
pub(super) struct Statements {
    often: Often,
    /// By the text's place in memory, which is its for as long as the program runs.
    texts: HashMap<(usize, usize), Vec<Variant>>,
    due: Vec<Due>,
    /// Prepared, or due to be.
    prepared: usize,
}

struct Variant {
    types: Vec<Type>,
    state: State,
}

enum State {
    Once,
    Due,
    Prepared(Statement),
    /// The server did not prepare it: it goes on as a text.
    Never,
}

/// A statement that shall be prepared.
pub(super) struct Due {
    pub(super) text: &'static str,
    pub(super) types: Vec<Type>,
}

impl Statements {
    /// Those of a new session of a pool that knows `often`.
    pub(super) fn new(often: Often) -> Self {
        Self { often, ..Self::default() }
    }

    /// Notes that `text` is about to be sent, and answers its prepared statement if there is one that fits.
    pub(super) fn meet(&mut self, text: &'static str, params: &[Parameter<'_>]) -> Option<Statement> {
        let key = key(text);
        if self.texts.len() >= TEXTS && !self.texts.contains_key(&key) {
            self.forget_unprepared();
        }
        let variants = self.texts.entry(key).or_default();
        for variant in variants.iter() {
            if let State::Prepared(statement) = &variant.state
                && fits(params, statement.params())
            {
                return Some(statement.clone());
            }
        }
        let types: Vec<Type> = params.iter().map(Parameter::kind).collect();
        let place = match variants.iter().position(|variant| variant.types == types) {
            Some(place) => place,
            None if variants.len() < VARIANTS => {
                variants.push(Variant { types: types.clone(), state: State::Once });
                if !lock(&self.often).contains(&(key, types.clone())) {
                    return None;
                }
                variants.len() - 1
            }
            None => return None,
        };
        let variant = &mut variants[place];
        if matches!(variant.state, State::Once) && self.prepared < PREPARED {
            lock(&self.often).insert((key, types.clone()));
            variant.state = State::Due;
            self.prepared += 1;
            self.due.push(Due { text, types });
        }
        None
    }

    /// What shall be prepared now. Tell what became of each ([`Statements::learn`]).
    pub(super) fn take_due(&mut self) -> Vec<Due> {
        let count = self.due.len().min(AT_ONCE);
        self.due.drain(..count).collect()
    }

    /// What became of a statement that was due.
    pub(super) fn learn(&mut self, due: &Due, statement: Option<Statement>) {
        let variants = self.texts.get_mut(&key(due.text)).map(Vec::as_mut_slice).unwrap_or_default();
        if let Some(variant) = variants.iter_mut().find(|variant| variant.types == due.types) {
            variant.state = match statement {
                Some(statement) => State::Prepared(statement),
                None => {
                    self.prepared -= 1;
                    State::Never
                }
            };
        }
    }

    /// Forgets everything: what was prepared no longer fits the schema.
    pub(super) fn clear(&mut self) {
        *self = Self::new(Arc::clone(&self.often));
    }

    fn forget_unprepared(&mut self) {
        self.texts.retain(|_, variants| {
            variants.retain(|variant| matches!(variant.state, State::Due | State::Prepared(_)));
            !variants.is_empty()
        });
    }
}

fn key(text: &'static str) -> (usize, usize) {
    (text.as_ptr().addr(), text.len())
}

fn fits(params: &[Parameter<'_>], wanted: &[Type]) -> bool {
    params.len() == wanted.len() && params.iter().zip(wanted).all(|(param, wanted)| param.fits(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Value;

    const TEXT: &str = "select $1";

    #[test]
    fn a_text_is_due_at_its_second_coming_and_only_once() {
        let mut statements = Statements::default();
        let (number, null) = (Value::Int(1), Value::Null);
        assert!(statements.meet(TEXT, &[Parameter::One(&number)]).is_none());
        assert!(statements.take_due().is_empty());
        statements.meet(TEXT, &[Parameter::One(&null)]);
        assert!(statements.take_due().is_empty(), "another set of types is another statement");
        statements.meet(TEXT, &[Parameter::One(&number)]);
        statements.meet(TEXT, &[Parameter::One(&number)]);
        let due = statements.take_due();
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].types, [Type::INT8]);
        statements.learn(&due[0], None);
        statements.meet(TEXT, &[Parameter::One(&number)]);
        assert!(statements.take_due().is_empty(), "what cannot be prepared is not tried for ever");
    }

    #[test]
    fn what_came_twice_in_one_session_is_due_at_its_first_coming_in_another() {
        let often = Often::default();
        let (mut one, mut other) = (Statements::new(Arc::clone(&often)), Statements::new(often));
        one.meet(TEXT, &[]);
        one.meet(TEXT, &[]);
        other.meet(TEXT, &[]);
        other.meet("select 2", &[]);
        let due: Vec<&str> = other.take_due().iter().map(|due| due.text).collect();
        assert_eq!(due, [TEXT]);
        other.clear();
        other.meet(TEXT, &[]);
        assert_eq!(other.take_due().len(), 1, "a new schema does not change what comes often");
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut statements = Statements::default();
        for number in 0..3 * TEXTS {
            let text: &'static str = Box::leak(format!("select {number}").into_boxed_str());
            statements.meet(text, &[]);
            statements.meet(text, &[]);
        }
        assert!(statements.texts.len() <= TEXTS);
        assert_eq!(statements.due.len(), PREPARED);
    }
}
