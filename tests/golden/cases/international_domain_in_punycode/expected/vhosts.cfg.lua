-- Virtual hosts: the domains whose users log in here.

VirtualHost "münchen.example"
	c2s_direct_tls_host = "xn--mnchen-3ya.example"
	certificate = "{data}/self-signed/xn--mnchen-3ya.example.crt"
	s2s_direct_tls_host = "xn--mnchen-3ya.example"
