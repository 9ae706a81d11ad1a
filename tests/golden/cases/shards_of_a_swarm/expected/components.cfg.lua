-- Components: services with an address of their own.

Component "conference.a.example" "muc"
	modules_enabled = { "muc_mam" }
	restrict_room_creation = "local"

Component "upload.a.example" "http_file_share"

Component "proxy.a.example" "proxy65"
