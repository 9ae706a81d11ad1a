module:depends("smacks");
module:depends("sasl2");
module:depends("sasl2_bind2");
