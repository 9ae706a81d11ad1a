module:depends("carbon");
