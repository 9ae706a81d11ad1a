-- Virtual hosts: the domains whose users log in here.

VirtualHost "chat.example"
	admins = { "root@chat.example" }
	certificate = "{data}/self-signed/chat.example.crt"

VirtualHost "other.example"
	certificate = "{data}/self-signed/other.example.crt"
