second = true
