//! The entrypoint of a container that runs the Prosody XMPP server.

pub mod lua;

/// What the environment says.
pub mod settings {
    pub mod nearest;
    pub mod types;
}
