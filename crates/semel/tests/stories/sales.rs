//! From an order to the goods, and back.
