//! The program as a process of its own: starts, stops, and deaths.
