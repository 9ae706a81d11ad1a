if module:get_option_boolean("tokens_over_mail") then
	module:depends("mail");
	module:depends("nowhere");
end
