local own, top = module:require"own", module:require "top";
local other = module:require("other/library");
