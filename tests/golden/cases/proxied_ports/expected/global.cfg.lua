-- Options for the whole server, and defaults for every host.

-- Where it runs
data_path = "{data}"
pidfile = "{run}/server/prosody.pid"
admin_socket = "{run}/server/prosody.sock"

-- Network
use_ipv6 = false
c2s_direct_tls_ports = { 5223 }

-- HTTP
http_interfaces = { "*" }
https_interfaces = { "*" }
http_max_content_size = 524288
trusted_proxies = { "192.0.2.7", "127.0.0.1" }
proxy_port_mappings = {
	["15222"] = "c2s";
	["15223"] = "c2s_direct_tls";
	["15281"] = "https";
	["443"] = "http";
}
proxy_trusted_proxies = { "localhost", "192.0.2.7", "127.0.0.1" }

-- Encryption, and how other servers prove who they are
s2s_secure_auth = true

-- Logging and statistics
log = { info = "*console" }

-- Certificates
certificates = "{output}/certificates"
https_certificate = "{data}/self-signed/chat.example.crt"
c2s_direct_tls_certificate = "{data}/self-signed/chat.example.crt"
s2s_direct_tls_certificate = "{data}/self-signed/chat.example.crt"
