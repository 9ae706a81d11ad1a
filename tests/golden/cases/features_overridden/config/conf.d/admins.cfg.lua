admins = { "admin@chat.example" }
