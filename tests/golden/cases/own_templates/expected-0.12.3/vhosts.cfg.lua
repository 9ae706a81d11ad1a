VirtualHost "chat.example"
	-- Prosody "0.12.3"
	certificate = "{data}/self-signed/chat.example.crt"
	motd_text = "Welcome to chat.example"
