module:depends("http");
