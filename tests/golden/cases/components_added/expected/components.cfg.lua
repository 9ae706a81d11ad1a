-- Components: services with an address of their own.

Component "conference.chat.example" "muc"
	admins = { "root@chat.example" }
	restrict_room_creation = "local"

Component "upload.chat.example" "http_file_share"

Component "proxy.chat.example" "proxy65"

Component "pubsub.chat.example" "pubsub"

Component "slidge.chat.example"
	component_secret = --[[secret]] "S3CRET"
	max_resources = 5
	modules_enabled = { "roster" }
