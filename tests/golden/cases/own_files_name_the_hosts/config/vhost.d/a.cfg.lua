VirtualHost "a.example"
