//! What is there: the only code that looks at the image and at the user's files. It reads and never writes.

pub mod certificates;
pub mod lua_source;
pub mod prosody;
pub mod user_files;
