-- Virtual hosts: the domains whose users log in here.

VirtualHost "a.example"
	authentication = "cards"
	certificate = "{data}/self-signed/a.example.crt"
	modules_enabled = { "one" }
	storage = "shelf"

VirtualHost "b.example"
	authorization = "badges"
	certificate = "{data}/self-signed/b.example.crt"
	modules_disabled = { "one" }
	storage = { archive = "attic", roster = "internal" }
