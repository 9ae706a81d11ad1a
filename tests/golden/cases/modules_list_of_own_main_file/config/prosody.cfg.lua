VirtualHost "chat.example"
