-- Virtual hosts: the domains whose users log in here.

VirtualHost "chat.example"
	certificate = "{data}/self-signed/chat.example.crt"
