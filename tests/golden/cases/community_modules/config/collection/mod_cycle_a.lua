module:depends'cycle_b';
