module:depends("http");
module:depends("register_apps");
module:depends("invites");
