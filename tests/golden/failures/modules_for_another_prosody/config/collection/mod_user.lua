module:depends("new");
