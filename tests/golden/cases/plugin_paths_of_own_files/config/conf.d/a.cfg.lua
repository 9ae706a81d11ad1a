plugin_paths = { "/srv/modules" }
