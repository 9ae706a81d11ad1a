-- Components: services with an address of their own.

Component "conference.münchen.example" "muc"
	c2s_direct_tls_host = "conference.xn--mnchen-3ya.example"
	modules_enabled = { "muc_mam" }
	restrict_room_creation = "local"
	s2s_direct_tls_host = "conference.xn--mnchen-3ya.example"

Component "upload.münchen.example" "http_file_share"
	c2s_direct_tls_host = "upload.xn--mnchen-3ya.example"
	s2s_direct_tls_host = "upload.xn--mnchen-3ya.example"

Component "proxy.münchen.example" "proxy65"
	c2s_direct_tls_host = "proxy.xn--mnchen-3ya.example"
	s2s_direct_tls_host = "proxy.xn--mnchen-3ya.example"
