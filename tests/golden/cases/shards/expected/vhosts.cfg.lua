-- Virtual hosts: the domains whose users log in here.

VirtualHost "a.example"
	certificate = "{data}/self-signed/a.example.crt"

VirtualHost "b.example"
	certificate = "{data}/self-signed/b.example.crt"
	entrypoint_shard = 1
