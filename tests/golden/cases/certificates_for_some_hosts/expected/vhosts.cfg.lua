-- Virtual hosts: the domains whose users log in here.

VirtualHost "pair.example"
	certificate = "{data}/self-signed/pair.example.crt"

VirtualHost "bundle.example"
	certificate = "{output}/certificates/bundle.example.pem"

VirtualHost "nested.example"
	certificate = "{output}/certificates/nested.example.pem"
