-- Virtual hosts: the domains whose users log in here.

VirtualHost "domain.tld"
	certificate = "{data}/self-signed/domain.tld.crt"
