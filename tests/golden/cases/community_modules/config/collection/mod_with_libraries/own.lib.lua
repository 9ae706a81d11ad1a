module:depends("for_a_library");
return {};
