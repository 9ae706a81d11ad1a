module:depends "lua"
