local serve = module:depends("chain_c").serve; module:depends("http");
