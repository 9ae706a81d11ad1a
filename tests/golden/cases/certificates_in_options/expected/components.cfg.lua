-- Components: services with an address of their own.

Component "rooms.own.example" "muc"
