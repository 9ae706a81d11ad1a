module:depends("inner");
