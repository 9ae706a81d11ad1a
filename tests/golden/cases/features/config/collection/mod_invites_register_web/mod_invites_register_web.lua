module:depends("register_apps");
module:depends("password_policy");
if webchat then module:depends("conversejs"); end
module:depends("http");
module:depends("invites");
module:depends("invites_page");
