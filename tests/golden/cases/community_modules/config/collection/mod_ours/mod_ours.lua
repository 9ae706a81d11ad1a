return "the user's wins";
