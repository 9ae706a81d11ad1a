-- Virtual hosts: the domains whose users log in here.

VirtualHost "pair.example"
	certificate = --[[secret]] "/srv/own.pem"

VirtualHost "own.example"
	certificate = --[[secret]] "/srv/own.pem"

VirtualHost "bundle.example"
	certificate = "{output}/certificates/bundle.example.pem"

VirtualHost "one.example"
