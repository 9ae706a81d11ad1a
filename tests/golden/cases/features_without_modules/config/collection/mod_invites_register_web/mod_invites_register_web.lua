module:depends("register_apps");
module:depends("password_policy");
module:depends("http");
module:depends("invites");
module:depends("invites_page");
