module:depends("xyzzy");
