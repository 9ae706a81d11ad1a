//! What there is of what is wanted: modules with their needs, certificates.

pub mod certificates;
pub mod modules;
pub mod self_signed;
