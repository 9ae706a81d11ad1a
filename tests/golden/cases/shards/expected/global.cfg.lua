-- Options for the whole server, and defaults for every host.

-- Where it runs
data_path = "{data}"
pidfile = "{run}/server/prosody.pid"
admin_socket = "{run}/server/prosody.sock"

-- Network
c2s_direct_tls_ports = { 5223 }

-- HTTP
http_interfaces = { "*", "::" }
https_interfaces = { "*", "::" }
http_max_content_size = 524288

-- Encryption, and how other servers prove who they are
s2s_secure_auth = true

-- Logging and statistics
log = { info = "*console" }

-- Certificates
certificates = "{output}/certificates"
https_certificate = "{data}/self-signed/a.example.crt"
c2s_direct_tls_certificate = "{data}/self-signed/a.example.crt"
s2s_direct_tls_certificate = "{data}/self-signed/a.example.crt"

-- Other options
entrypoint_shards = {
	count = 3;
	number = 2;
	settings = { PROSODY_COMPONENTS = "3592e8b4" };
}
