module:depends("adhoc");
module:depends("http");
module:depends("password_policy");
