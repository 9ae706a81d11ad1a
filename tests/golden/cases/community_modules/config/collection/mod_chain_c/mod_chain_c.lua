-- module:depends("a_comment");
local text = [[ module:depends("a_text") ]];
if module:get_option_boolean("x") then
	module:depends("possible");
	module:depends("nowhere");
end
local has_json = pcall(require, "no_such_library");
