-- Virtual hosts: the domains whose users log in here.

VirtualHost "a.example"
	certificate = "{data}/self-signed/a.example.crt"
