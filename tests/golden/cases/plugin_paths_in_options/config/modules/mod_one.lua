return "not searched";
