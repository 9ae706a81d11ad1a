-- Components: services with an address of their own.

Component "rooms.chat.example" "muc"
	modules_enabled = { "muc_mam", "muc_unique" }
	restrict_room_creation = "local"

Component "files.chat.example" "http_file_share"
	http_paths = { file_share = "/share" }

Component "proxy.chat.example" "proxy65"

Component "pubsub.chat.example" "pubsub"
