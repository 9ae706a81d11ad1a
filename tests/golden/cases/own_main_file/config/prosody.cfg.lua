VirtualHost "own.example"
