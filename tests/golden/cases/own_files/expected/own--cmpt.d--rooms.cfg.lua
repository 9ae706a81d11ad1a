Component "rooms.chat.example" "muc"
