-- Virtual hosts: the domains whose users log in here.

VirtualHost "certbot.example"
	certificate = "{data}/self-signed/certbot.example.crt"

VirtualHost "rsa.example"
	certificate = "{data}/self-signed/rsa.example.crt"

VirtualHost "acme.example"
	certificate = "{data}/self-signed/acme.example.crt"

VirtualHost "authority.example"
	certificate = "{data}/self-signed/authority.example.crt"

VirtualHost "expired.example"
	certificate = "{output}/certificates/expired.example.pem"

VirtualHost "future.example"
	certificate = "{data}/self-signed/future.example.crt"

VirtualHost "common-name.example"
	certificate = "{data}/self-signed/common-name.example.crt"

VirtualHost "pair.example"
	certificate = "{data}/self-signed/pair.example.crt"
