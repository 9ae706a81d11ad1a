if x then module:depends("muc"); end
