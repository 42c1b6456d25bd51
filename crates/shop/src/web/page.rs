//! Pages of lists: how many items, from where on, and where the next one begins.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::Error;

/// How many items a page has where nobody says.
const PAGE: i64 = 50;
/// The most that somebody may ask for.
const LONGEST_PAGE: i64 = 200;

/// How many items are asked for. Whoever reads them reads one more: it tells [`page`] whether there is another page.
///
/// # Errors
/// [`Error::Invalid`] for more than a page may have, or none.
pub fn page_size(limit: Option<i64>) -> Result<i64, Error> {
    let limit = limit.unwrap_or(PAGE);
    if (1..=LONGEST_PAGE).contains(&limit) {
        return Ok(limit);
    }
    Err(Error::invalid("limit", format!("between 1 and {LONGEST_PAGE}, not {limit}")))
}

/// Where the page before ended, as `parse` reads it; nothing for the first page.
///
/// # Errors
/// [`Error::Invalid`] for what is none of our cursors.
pub fn cursor<T>(given: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Error> {
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(None) };
    match parse(text) {
        Some(place) => Ok(Some(place)),
        None => Err(Error::invalid("cursor", "give the next_cursor of the page before")),
    }
}

/// A word that a list is filtered by. PostgreSQL takes no zero byte in a text, and nothing of ours has a control character.
///
/// # Errors
/// [`Error::Invalid`] for `field` with a control character.
pub fn filter(field: &str, given: Option<String>) -> Result<Option<String>, Error> {
    match given {
        Some(text) if text.chars().any(char::is_control) => Err(Error::invalid(field, "no control characters")),
        given => Ok(given),
    }
}

#[derive(Serialize)]
struct Page<T, P> {
    items: Vec<T>,
    next_cursor: Option<P>,
}

/// The first `limit` of `items`, which may be one more, and the `place` of the last of them where another page follows.
pub fn page<T: Serialize, P: Serialize>(items: Vec<T>, limit: i64, place: impl Fn(&T) -> P) -> Response {
    let (items, more) = first(items, limit);
    let next_cursor = items.last().filter(|_| more).map(place);
    Json(Page { items, next_cursor }).into_response()
}

/// The first `limit` of what may be one more, and whether there is more.
fn first<T>(mut items: Vec<T>, limit: i64) -> (Vec<T>, bool) {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > wanted;
    items.truncate(wanted);
    (items, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_whether_there_is_more() {
        assert_eq!(first(vec![1, 2, 3], 2), (vec![1, 2], true));
        assert_eq!(first(vec![1, 2], 2), (vec![1, 2], false));
    }

    #[test]
    fn a_page_has_some_items_and_a_cursor_is_one_of_ours() {
        assert_eq!(page_size(None).expect("a size"), PAGE);
        assert!(page_size(Some(0)).is_err() && page_size(Some(LONGEST_PAGE + 1)).is_err());
        let number = |text: &str| text.parse::<i64>().ok();
        assert_eq!(cursor(None, number).expect("the first page"), None);
        assert_eq!(cursor(Some(""), number).expect("the first page"), None);
        assert_eq!(cursor(Some("7"), number).expect("a place"), Some(7));
        assert!(cursor(Some("x"), number).is_err());
        assert!(filter("kind", Some("\0".into())).is_err());
        assert_eq!(filter("kind", Some("goods".into())).expect("a word").as_deref(), Some("goods"));
    }
}
