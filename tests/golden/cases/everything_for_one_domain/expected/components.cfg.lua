-- Components: services with an address of their own.

Component "conference.chat.example" "muc"
	modules_enabled = { "muc_mam", "muc_unique" }
	restrict_room_creation = true

Component "upload.chat.example" "http_file_share"

Component "proxy.chat.example" "proxy65"

Component "irc.chat.example"
	component_secret = --[[secret]] "hunter2"

Component "sms.chat.example"
	component_secret = --[[secret]] "correct horse battery staple"
