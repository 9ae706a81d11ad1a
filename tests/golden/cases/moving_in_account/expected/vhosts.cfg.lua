-- Virtual hosts: the domains whose users log in here.

VirtualHost "shakespeare.lit"
	certificate = "{data}/self-signed/shakespeare.lit.crt"
