//! All end-to-end tests, one binary: it links once, and one module per topic keeps it readable.

mod layering;
mod tidy;
