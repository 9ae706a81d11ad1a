//! The parts of `prosody-entrypoint`, as a library, so that tests, benchmarks and fuzz targets reach them.

pub mod facts;
pub mod health;
pub mod log;
pub mod self_signed;

#[cfg(test)]
mod test_dir;
