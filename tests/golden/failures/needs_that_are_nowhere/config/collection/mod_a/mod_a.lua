module:depends("b");
