module:depends("for_a_library");
module:require("not_there_either");
