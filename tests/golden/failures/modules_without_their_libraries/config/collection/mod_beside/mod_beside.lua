module:require("not_there");
