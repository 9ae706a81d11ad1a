-- What is loaded on every virtual host.

modules_enabled = { "roster", "saslauth", "tls", "disco", "admin_shell" }
