-- Components: services with an address of their own.

Component "rooms.a.example" "muc"
