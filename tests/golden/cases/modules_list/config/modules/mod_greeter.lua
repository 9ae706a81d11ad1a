local greeting = module:get_option_string("greeting");
