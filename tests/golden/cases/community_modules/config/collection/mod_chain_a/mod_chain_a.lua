module:depends"chain_b";
