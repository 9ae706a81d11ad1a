-- Components: services with an address of their own.

Component "files.chat.example" "http_file_share"
	http_paths = { file_share = "/share" }
