-- Components: services with an address of their own.

Component "rooms.chat.example" "muc"
	modules_enabled = { "muc_quiet", "room_service" }

Component "talk.chat.example" "muc"
	modules_enabled = { "muc_quiet", "room_service" }
	restrict_room_creation = true

Component "files.chat.example" "http_file_share"
	http_paths = { file_share = "/share" }
