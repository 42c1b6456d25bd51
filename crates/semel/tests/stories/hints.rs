//! Webhooks are hints: what the provider says when asked is what counts.
