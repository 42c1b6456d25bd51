//! `multipart/form-data` (RFC 7578), as much of it as one upload needs.
//!
//! The boundary is found by looking, not by chance: equal forms give equal bytes, so a repeat is the same request.

/// A form whose parts borrow what they hold.
pub(crate) struct Form<'a> {
    parts: Vec<Part<'a>>,
}

struct Part<'a> {
    head: String,
    content: &'a [u8],
}

impl<'a> Form<'a> {
    pub(crate) fn new() -> Self {
        Self { parts: Vec::new() }
    }

    /// Adds a plain value.
    pub(crate) fn text(mut self, name: &str, value: &'a str) -> Self {
        let head = format!("Content-Disposition: form-data; name=\"{}\"\r\n", quoted(name));
        self.parts.push(Part { head, content: value.as_bytes() });
        self
    }

    /// Adds a file. A `mime` that is no header value becomes `application/octet-stream`.
    pub(crate) fn file(mut self, name: &str, filename: &str, mime: &str, bytes: &'a [u8]) -> Self {
        let known = !mime.is_empty() && mime.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        let mime = if known { mime } else { "application/octet-stream" };
        let filename = if filename.is_empty() { "file" } else { filename };
        let head = format!(
            "Content-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\nContent-Type: {mime}\r\n",
            quoted(name),
            quoted(filename),
        );
        self.parts.push(Part { head, content: bytes });
        self
    }

    /// The value of `Content-Type`, and the body.
    pub(crate) fn encode(&self) -> (String, Vec<u8>) {
        let boundary = self.boundary();
        let size: usize = self.parts.iter().map(|part| part.head.len() + part.content.len() + boundary.len() + 8).sum();
        let mut body = Vec::with_capacity(size + boundary.len() + 6);
        for part in &self.parts {
            body.extend_from_slice(format!("--{boundary}\r\n{}\r\n", part.head).as_bytes());
            body.extend_from_slice(part.content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        (format!("multipart/form-data; boundary={boundary}"), body)
    }

    /// The first of a fixed row of words that stands nowhere in the form.
    fn boundary(&self) -> String {
        let mut n: u64 = 0;
        loop {
            let word = format!("semel-part-{n:016x}");
            let stands = |text: &[u8]| text.windows(word.len()).any(|window| window == word.as_bytes());
            if !self.parts.iter().any(|part| stands(part.content) || stands(part.head.as_bytes())) {
                return word;
            }
            n += 1;
        }
    }
}

/// A name inside quotes, with the three characters escaped that would end it (as browsers do).
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_never_stands_in_the_content() {
        let (content_type, _) = Form::new().text("a", "b").encode();
        assert_eq!(content_type, "multipart/form-data; boundary=semel-part-0000000000000000");

        let nasty = "semel-part-0000000000000000 \r\n--semel-part-0000000000000001--\r\n";
        let (content_type, body) = Form::new().text("a", nasty).encode();
        assert_eq!(content_type, "multipart/form-data; boundary=semel-part-0000000000000002");
        let body = String::from_utf8(body).expect("text");
        assert_eq!(body.matches("semel-part-0000000000000002").count(), 2);
    }

    #[test]
    fn a_file_name_cannot_leave_its_quotes() {
        let (_, body) = Form::new().file("document", "a\"\r\nX: y.conf", "text/plain\r\nX: y", b"1").encode();
        let body = String::from_utf8(body).expect("text");
        assert!(
            body.contains("filename=\"a%22%0D%0AX: y.conf\"\r\nContent-Type: application/octet-stream\r\n\r\n1\r\n")
        );
    }
}
