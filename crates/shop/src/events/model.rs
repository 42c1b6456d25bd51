//! An event and the bytes that tell it.

use serde_json::Value;

use semel_kernel::clock::Time;

semel_kernel::id!(EventId, "evt", "An event. Its receiver sees it as `webhook-id`.");

/// What is posted: `{"type":…,"timestamp":…,"data":…}`, in this order, the time in RFC 3339.
pub(super) fn body(type_: &str, at: Time, data: &Value) -> String {
    format!(r#"{{"type":{},"timestamp":"{at}","data":{data}}}"#, Value::from(type_))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_body_is_what_the_specification_names() {
        let data = json!({ "order": "ord_1", "total": { "amount": "499.00", "currency": "RUB" } });
        assert_eq!(
            body("order.paid", Time::from_millis(1_614_265_330_000), &data),
            r#"{"type":"order.paid","timestamp":"2021-02-25T15:02:10.000Z","data":{"order":"ord_1","total":{"amount":"499.00","currency":"RUB"}}}"#
        );
    }

    #[test]
    fn any_data_makes_valid_json() {
        let text = body("odd\"type", Time::from_millis(0), &json!({ "note": "line\nand \"quotes\" и кириллица" }));
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read["type"], "odd\"type");
        assert_eq!(read["data"]["note"], "line\nand \"quotes\" и кириллица");
    }
}
