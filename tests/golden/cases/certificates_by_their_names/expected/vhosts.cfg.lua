-- Virtual hosts: the domains whose users log in here.

VirtualHost "one.example"
	certificate = "{output}/certificates/one.example.pem"

VirtualHost "two.example"
	certificate = "{output}/certificates/one.example.pem"

VirtualHost "münchen.example"
	c2s_direct_tls_host = "xn--mnchen-3ya.example"
	certificate = "{output}/certificates/münchen.example.pem"
	s2s_direct_tls_host = "xn--mnchen-3ya.example"

VirtualHost "zürich.example"
	c2s_direct_tls_host = "xn--zrich-kva.example"
	certificate = "{output}/certificates/zürich.example.pem"
	s2s_direct_tls_host = "xn--zrich-kva.example"

VirtualHost "upper.example"
	certificate = "{output}/certificates/upper.example.pem"

VirtualHost "a.wild.example"
	certificate = "{output}/certificates/a.wild.example.pem"

VirtualHost "b.a.wild.example"

VirtualHost "services.example"
	certificate = "{output}/certificates/services.example.pem"

VirtualHost "pair.example"
	certificate = "{output}/certificates/pair.example.pem"
