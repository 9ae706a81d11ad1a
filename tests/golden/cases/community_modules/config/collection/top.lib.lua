return module:require("top");
