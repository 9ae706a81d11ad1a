module:depends("muc");
