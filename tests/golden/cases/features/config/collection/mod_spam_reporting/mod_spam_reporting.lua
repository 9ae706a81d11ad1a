module:depends("blocklist");
