-- Virtual hosts: the domains whose users log in here.

VirtualHost "a.example"
	authentication = --[[secret]] "cards"
	certificate = "{data}/self-signed/a.example.crt"
	modules_enabled = { "one" }
	storage = --[[secret]] "shelf"

VirtualHost "b.example"
	authorization = --[[secret]] "badges"
	certificate = "{data}/self-signed/b.example.crt"
	modules_disabled = { "one" }
	storage = {
	archive = --[[secret]] "attic";
	roster = --[[secret]] "internal";
}
