local function serve()
	local library = module:require("not_there");
	module:depends("half");
end
