module:depends("nowhere_either");
local x = require "no_such_library";
module:require("not_there");
