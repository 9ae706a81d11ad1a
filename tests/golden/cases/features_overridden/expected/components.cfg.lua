-- Components: services with an address of their own.

Component "upload.chat.example" "http_file_share"
	http_paths = { file_share = "/share" }
