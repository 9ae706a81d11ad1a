-- Virtual hosts: the domains whose users log in here.

VirtualHost "münchen.example"
	certificate = "{data}/self-signed/xn--mnchen-3ya.example.crt"
