-- What is loaded on every virtual host.

plugin_paths = {
	"{output}/community-modules";
}

modules_enabled = { "disco", "one" }
