//! The parts of `prosody-entrypoint`, as a library: what the binary, the tests and the fuzz targets share.

pub mod lua;
pub mod templates;
