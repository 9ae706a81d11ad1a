x_own = 1
