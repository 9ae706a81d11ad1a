x_extra = 1
