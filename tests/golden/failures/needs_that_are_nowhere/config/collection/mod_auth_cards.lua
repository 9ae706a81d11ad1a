module:depends("auth_stamps");
