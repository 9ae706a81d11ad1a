local muc = module:depends("muc");
