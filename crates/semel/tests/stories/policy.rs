//! What becomes of money and goods when a sale does not go by the book.
