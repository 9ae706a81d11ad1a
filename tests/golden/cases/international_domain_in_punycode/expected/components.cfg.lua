-- Components: services with an address of their own.

Component "conference.münchen.example" "muc"
	modules_enabled = { "muc_mam" }
	restrict_room_creation = "local"
	s2s_direct_tls_host = "conference.xn--mnchen-3ya.example"

Component "upload.münchen.example" "http_file_share"
	s2s_direct_tls_host = "upload.xn--mnchen-3ya.example"

Component "proxy.münchen.example" "proxy65"
	s2s_direct_tls_host = "proxy.xn--mnchen-3ya.example"
