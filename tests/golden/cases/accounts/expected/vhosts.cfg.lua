-- Virtual hosts: the domains whose users log in here.

VirtualHost "chat.example"
	admins = { "bob@chat.example", "alice@chat.example" }
	certificate = "{data}/self-signed/chat.example.crt"
	modules_enabled = { "motd" }

VirtualHost "b.example"
	certificate = "{data}/self-signed/b.example.crt"
