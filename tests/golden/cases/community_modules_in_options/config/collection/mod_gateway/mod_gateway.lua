module:depends("three");
