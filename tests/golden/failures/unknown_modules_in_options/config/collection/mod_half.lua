module:depends("other_half");
