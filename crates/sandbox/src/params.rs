//! Parameters of a call, wherever they stand: query, JSON, form, or multipart with files. Telegram takes all four.

use std::collections::BTreeMap;

use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

/// A file of a multipart call.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
}

/// The parameters and files of one call.
#[derive(Debug, Default)]
pub(crate) struct Params {
    pub(crate) values: Map<String, Value>,
    pub(crate) files: BTreeMap<String, Upload>,
}

/// The media type of the body, lower case.
pub(crate) fn content_type(request: &Request) -> String {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_ascii_lowercase()
}

/// The pairs of a query or a form.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

impl Params {
    /// Reads a request to its end; the error is a sentence.
    pub(crate) async fn read(request: Request) -> Result<Params, String> {
        let mut params = Params::default();
        params.add_pairs(request.uri().query().unwrap_or_default());
        let kind = content_type(&request);
        if kind.starts_with("multipart/form-data") {
            params.add_multipart(request).await?;
            return Ok(params);
        }
        let body = <Bytes as FromRequest<()>>::from_request(request, &()).await.map_err(|error| error.to_string())?;
        if kind.starts_with("application/json") && !body.is_empty() {
            match serde_json::from_slice::<Value>(&body) {
                Ok(Value::Object(members)) => params.values.extend(members),
                Ok(_) => return Err("object expected as the body".into()),
                Err(error) => return Err(format!("can't parse JSON: {error}")),
            }
        } else if kind.starts_with("application/x-www-form-urlencoded") {
            params.add_pairs(&String::from_utf8_lossy(&body));
        }
        Ok(params)
    }

    fn add_pairs(&mut self, text: &str) {
        for (name, value) in pairs(text) {
            self.values.insert(name, Value::String(value));
        }
    }

    async fn add_multipart(&mut self, request: Request) -> Result<(), String> {
        let mut parts =
            <Multipart as FromRequest<()>>::from_request(request, &()).await.map_err(|error| error.to_string())?;
        while let Some(field) = parts.next_field().await.map_err(|error| error.to_string())? {
            let Some(name) = field.name().map(str::to_owned) else { continue };
            let file_name = field.file_name().map(str::to_owned);
            let bytes = field.bytes().await.map_err(|error| error.to_string())?;
            match file_name {
                Some(file_name) => {
                    self.files.insert(name, Upload { name: file_name, bytes });
                }
                None => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    self.values.insert(name, Value::String(text));
                }
            }
        }
        Ok(())
    }

    /// A parameter as text; numbers and flags print.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.values.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// A parameter as text that says something.
    pub(crate) fn filled(&self, name: &str) -> Option<String> {
        self.text(name).filter(|text| !text.is_empty())
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.text(name)?.trim().parse().ok()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| matches!(text.as_str(), "true" | "1" | "on" | "True"))
    }

    /// A structured parameter: itself in a JSON body, JSON text elsewhere.
    pub(crate) fn json(&self, name: &str) -> Option<Value> {
        match self.values.get(name)? {
            Value::String(text) => serde_json::from_str(text).ok(),
            other => Some(other.clone()),
        }
    }
}
