-- Components: services with an address of their own.

Component "conference.chat.example" "muc"
	modules_enabled = { "muc_mam" }
	restrict_room_creation = "local"

Component "conference.jörg.example" "muc"
	https_host = "conference.xn--jrg-sna.example"
	modules_enabled = { "muc_mam" }
	restrict_room_creation = "local"
	s2s_direct_tls_host = "conference.xn--jrg-sna.example"

Component "upload.chat.example" "http_file_share"

Component "upload.jörg.example" "http_file_share"
	https_host = "upload.xn--jrg-sna.example"
	s2s_direct_tls_host = "upload.xn--jrg-sna.example"

Component "proxy.chat.example" "proxy65"

Component "proxy.jörg.example" "proxy65"
	https_host = "proxy.xn--jrg-sna.example"
	s2s_direct_tls_host = "proxy.xn--jrg-sna.example"

Component "pubsub.chat.example" "pubsub"
