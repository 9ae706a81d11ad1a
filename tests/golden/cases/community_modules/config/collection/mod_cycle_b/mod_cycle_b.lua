module:depends("cycle_a"); module:depends("cycle_b");
