module:depends("middle"); module:depends("alone", true);
