-- Virtual hosts: the domains whose users log in here.

VirtualHost "a.example"
	admins = { "root@a.example" }
	allow_registration = true
	authentication = "internal_plain"
	certificate = "{data}/self-signed/a.example.crt"
	max_resources = 5
	modules_disabled = { "pep" }
	modules_enabled = { "motd", "announce" }
	motd_text = --[[secret]] "Maintenance\nat 22:00"
	ssl = { protocol = --[[secret]] "tlsv1_2+" }
	storage = { archive = "memory" }

VirtualHost "b.example"
	certificate = "{data}/self-signed/b.example.crt"

VirtualHost "c.example"
	certificate = "{data}/self-signed/c.example.crt"
