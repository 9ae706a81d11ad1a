max_resources = 5
