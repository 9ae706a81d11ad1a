-- Components: services with an address of their own.

Component "rooms.domain.tld" "muc"
	modules_enabled = { "muc_mam" }
	restrict_room_creation = "local"

Component "upload.domain.tld" "http_file_share"

Component "proxy.domain.tld" "proxy65"

Component "news.domain.tld" "pubsub"
