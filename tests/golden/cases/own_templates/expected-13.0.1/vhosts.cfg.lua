VirtualHost "chat.example"
	-- Prosody "13.0.1"
	certificate = "{data}/self-signed/chat.example.crt"
	motd_text = "Welcome to chat.example"
