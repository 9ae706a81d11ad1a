-- Virtual hosts: the domains whose users log in here.

VirtualHost "localhost"
	certificate = "{data}/self-signed/localhost.crt"
