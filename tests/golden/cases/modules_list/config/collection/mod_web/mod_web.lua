module:depends("http");
module:depends("tokens");
