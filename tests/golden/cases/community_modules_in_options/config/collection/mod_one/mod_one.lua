module:depends("two");
