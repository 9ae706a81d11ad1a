module:depends("spam_reporting");
