-- Components: services with an address of their own.

Component "gateway.a.example" "gateway"
	default_storage = "cellar"
	modules_enabled = { "four" }
	storage = { pubsub_data = "null" }
