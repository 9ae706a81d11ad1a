-- Virtual hosts: the domains whose users log in here.

VirtualHost "chat.example"
	certificate = "{data}/self-signed/chat.example.crt"

VirtualHost "jörg.example"
	admins = { "root@chat.example" }
	c2s_direct_tls_host = "xn--jrg-sna.example"
	certificate = "{data}/self-signed/xn--jrg-sna.example.crt"
	https_host = "xn--jrg-sna.example"
	s2s_direct_tls_host = "xn--jrg-sna.example"

VirtualHost "other.example"
	certificate = "{data}/self-signed/other.example.crt"
