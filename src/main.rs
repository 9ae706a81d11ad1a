//! `prosody-entrypoint`: the entrypoint of a container that runs the Prosody XMPP server.

fn main() {}
