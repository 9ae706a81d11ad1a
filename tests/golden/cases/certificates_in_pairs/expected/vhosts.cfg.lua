-- Virtual hosts: the domains whose users log in here.

VirtualHost "pair.example"
	certificate = "{output}/certificates/pair.example.pem"

VirtualHost "bundle.example"
	certificate = "{output}/certificates/bundle.example.pem"

VirtualHost "nested.example"
	certificate = "{data}/self-signed/nested.example.crt"
