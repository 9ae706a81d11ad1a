-- Virtual hosts: the domains whose users log in here.

VirtualHost "chat.example"
