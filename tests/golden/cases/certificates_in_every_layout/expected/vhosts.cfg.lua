-- Virtual hosts: the domains whose users log in here.

VirtualHost "certbot.example"
	certificate = "{output}/certificates/certbot.example.pem"

VirtualHost "acme.example"
	certificate = "{output}/certificates/acme.example.pem"

VirtualHost "caddy.example"
	certificate = "{output}/certificates/caddy.example.pem"

VirtualHost "traefik.example"
	certificate = "{output}/certificates/traefik.example.pem"

VirtualHost "kubernetes.example"
	certificate = "{output}/certificates/kubernetes.example.pem"

VirtualHost "pair.example"
	certificate = "{output}/certificates/pair.example.pem"

VirtualHost "bundle.example"
	certificate = "{output}/certificates/bundle.example.pem"

VirtualHost "nested.example"
	certificate = "{output}/certificates/nested.example.pem"
