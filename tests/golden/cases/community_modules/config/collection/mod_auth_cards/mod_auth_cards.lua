local cards = module:require("cards");
