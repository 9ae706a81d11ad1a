module:require("library");
