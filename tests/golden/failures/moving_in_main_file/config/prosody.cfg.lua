network_backend = "${PROSODY_NETWORK_BACKEND:-select}"
allow_registration = ${PROSODY_ALLOW_REGISTRATION:-false}
