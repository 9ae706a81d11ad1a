-- Components: services with an address of their own.

Component "rooms.a.example" "muc"
	modules_enabled = { "muc_unique", "muc_mam" }
	muc_room_default_public = false
	name = --[[secret]] "The rooms"
	restrict_room_creation = false

Component "rooms.b.example" "muc"
	modules_enabled = { "muc_mam" }

Component "files.a.example" "http_file_share"
	http_file_share_size_limit = 104857616
	http_paths = { file_share = "/share/$host" }

Component "files.b.example" "http_file_share"

Component "proxy.a.example" "proxy65"
	proxy65_acl = { --[[secret]] "a.example", --[[secret]] "b.example" }
