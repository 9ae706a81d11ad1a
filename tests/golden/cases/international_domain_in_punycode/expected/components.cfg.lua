-- Components: services with an address of their own.

Component "conference.münchen.example" "muc"
	modules_enabled = { "muc_mam" }
	restrict_room_creation = "local"

Component "upload.münchen.example" "http_file_share"

Component "proxy.münchen.example" "proxy65"
