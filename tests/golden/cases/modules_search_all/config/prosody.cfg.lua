this = "is read by nobody";
