-- Virtual hosts: the domains whose users log in here.

VirtualHost "chat.example"
	certificate = "{data}/self-signed/chat.example.crt"

VirtualHost "b.example"
	certificate = "{data}/self-signed/b.example.crt"
	modules_disabled = { "inner", "c2s", "admin_socket", "admin_shell" }
	modules_enabled = { "inner_user" }
