local x = require"no_such_library";
local y = require "util.no_such_utility";
local s = require "string";
