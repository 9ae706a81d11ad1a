return "Prosody 13.0 has it itself";
