-- Components: services with an address of their own.

Component "conference.chat.example" "muc"
	modules_enabled = { "muc_mam" }
	restrict_room_creation = "local"

Component "upload.chat.example" "http_file_share"

Component "proxy.chat.example" "proxy65"
