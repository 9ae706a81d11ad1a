module:depends("sasl2");
