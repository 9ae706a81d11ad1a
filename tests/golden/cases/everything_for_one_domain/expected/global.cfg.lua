-- Options for the whole server, and defaults for every host.

-- Who runs it, and what it shows
admins = { "admin@chat.example" }
unlimited_jids = { "bridge@chat.example", "irc.chat.example" }
contact_info = {
	abuse = { "mailto:abuse@chat.example", "xmpp:abuse@chat.example" };
	admin = { "mailto:admin@chat.example" };
	feedback = { "https://chat.example/feedback" };
	sales = { "mailto:sales@chat.example" };
	security = { "mailto:security@chat.example" };
	status = { "https://status.chat.example" };
	support = { "xmpp:help@conference.chat.example?join" };
}
disco_items = {
	{ "search.example", "A directory of rooms" };
	{ "pubsub.example" };
}

-- Where it runs
data_path = "{data}"
pidfile = "{run}/server/prosody.pid"
admin_socket = "{run}/server/prosody.sock"

-- Network
network_backend = "event"
interfaces = { "192.0.2.1", "2001:db8::1" }
use_ipv6 = true
c2s_ports = { 5222, 15222 }
c2s_direct_tls_ports = { 15223 }
s2s_ports = { 15269 }
s2s_direct_tls_ports = { 15270 }
component_ports = { 15347 }
component_interfaces = { "127.0.0.1" }
proxy65_ports = { 15000 }
proxy65_address = "xmpp.chat.example"
external_addresses = { "203.0.113.1", "2001:db8::7" }
unbound = {
	forward = { "192.0.2.53", "192.0.2.54@5353" };
	resolvconf = false;
}

-- HTTP
http_ports = { 15280 }
http_interfaces = { "127.0.0.1" }
https_ports = { 15281 }
https_interfaces = { "192.0.2.1" }
http_host = "xmpp.chat.example"
http_external_url = "https://www.chat.example/xmpp"
http_max_content_size = 524288
trusted_proxies = { "192.0.2.7" }
consider_bosh_secure = true
consider_websocket_secure = true
access_control_allow_origins = { "https://web.example" }

-- Encryption, and how other servers prove who they are
s2s_secure_auth = false
s2s_secure_domains = { "bank.example" }
s2s_insecure_domains = { "old.example" }
c2s_require_encryption = true
s2s_require_encryption = true

-- Rate limits
limits = {
	c2s = { rate = "20kb/s" };
	s2sin = { rate = "1mb/s" };
}

-- Authentication and registration
authentication = "internal_plain"
allow_registration = true
registration_invite_only = true

-- File sharing
http_file_share_size_limit = 52428816
http_file_share_daily_quota = 524288000
http_file_share_global_quota = 107374182400
http_file_share_expires_after = 1209600

-- Audio and video calls (STUN and TURN)
turn_external_host = "turn.chat.example"
turn_external_port = 3479
turn_external_secret = --[[secret]] "tiger"
turn_external_tcp = true
turn_external_ttl = 3600
external_services = {
	{
		algorithm = "turn";
		host = "turn.chat.example";
		port = 5349;
		secret = --[[secret]] "tiger";
		transport = "tcp";
		ttl = 3600;
		type = "turns";
	};
}

-- Logging and statistics
log = { warn = "*console" }
statistics = "internal"
statistics_interval = "manual"
openmetrics_allow_ips = { "192.0.2.9" }
openmetrics_allow_cidr = "10.0.0.0/8"

-- Certificates
certificates = "{output}/certificates"
tls_profile = "modern"
https_certificate = "{data}/self-signed/chat.example.crt"
c2s_direct_tls_certificate = "{data}/self-signed/chat.example.crt"
s2s_direct_tls_certificate = "{data}/self-signed/chat.example.crt"

-- Other options
max_resources = 5
