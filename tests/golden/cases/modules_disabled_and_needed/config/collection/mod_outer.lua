module:depends("between");
