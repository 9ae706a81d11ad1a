VirtualHost "other.example"
