-- Components: services with an address of their own.

Component "share.own.example" "http_file_share"
	certificate = "{data}/self-signed/share.own.example.crt"
	http_paths = { file_share = "/share" }
