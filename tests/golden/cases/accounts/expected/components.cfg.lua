-- Components: services with an address of their own.

Component "rooms.chat.example" "muc"
