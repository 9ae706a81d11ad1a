module:depends("beside_it");
