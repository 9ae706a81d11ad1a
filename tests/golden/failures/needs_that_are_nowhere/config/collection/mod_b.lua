module:depends("csi_battery");
