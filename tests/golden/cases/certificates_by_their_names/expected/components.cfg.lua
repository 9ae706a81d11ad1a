-- Components: services with an address of their own.

Component "rooms.pair.example" "muc"

Component "files.münchen.example" "http_file_share"
	http_paths = { file_share = "/share" }
	s2s_direct_tls_host = "files.xn--mnchen-3ya.example"
