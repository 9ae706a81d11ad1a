local function serve()
	local library = module:require("not_there");
	local other = module:require("sometimes");
	module:depends("half");
end
