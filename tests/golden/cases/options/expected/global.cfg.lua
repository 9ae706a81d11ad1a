-- Options for the whole server, and defaults for every host.

-- Where it runs
data_path = "{data}"
pidfile = "{run}/server/prosody.pid"
admin_socket = "{run}/server/prosody.sock"

-- HTTP
http_interfaces = { "*", "::" }
https_interfaces = { "*", "::" }
http_max_content_size = 9007199254740993

-- Encryption, and how other servers prove who they are
s2s_secure_auth = true

-- Rate limits
limits = {
	c2s = { burst = --[[secret]] "2s", rate = --[[secret]] "3kb/s" };
}

-- Logging and statistics
log = { info = "*console" }

-- Certificates
certificates = "{output}/certificates"
ssl = {
	["end"] = 2;
	options = { no_ticket = true };
	protocol = --[[secret]] "tlsv1_2";
	["two words"] = 1;
}
https_certificate = "{data}/self-signed/chat.example.crt"
c2s_direct_tls_certificate = "{data}/self-signed/chat.example.crt"
s2s_direct_tls_certificate = "{data}/self-signed/chat.example.crt"

-- Other options
c2s_stanza_size_limit = 1000000
c2s_timeout = 1.5
cross_domain_bosh = false
max_resources = 5
tls_ciphers = { --[[secret]] "a", --[[secret]] "b" }
welcome_message = --[[secret]] "Hello \"world\"; ]] -- {{ domain }}\n"
