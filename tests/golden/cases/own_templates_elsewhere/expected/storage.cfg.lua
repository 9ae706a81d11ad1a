default_storage = "memory"
